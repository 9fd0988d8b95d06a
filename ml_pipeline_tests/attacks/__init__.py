"""What hostile hosts, servers, models and files send, each in a process that can take no more than it may."""
