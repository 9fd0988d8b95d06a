"""A model server as a child process, here or on another host, that ends when nobody holds on to it any more."""
