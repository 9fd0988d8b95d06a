"""Our line protocol is that of influxdb-client, to the letter."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from influxdb_client.client.write.point import Point

from ml_pipeline.stores.line_protocol import line_of

NAMES = st.text(st.sampled_from('ab,= "\\\n\t\r#\u00fc\U0001f600'), min_size=1, max_size=6)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats()


@given(NAMES, st.dictionaries(NAMES, NAMES | st.just("")), st.dictionaries(NAMES, NUMBERS), st.integers(0, 2**62))
@example("m", {"label": "G1 @7", "end": "\\"}, {"whole": 3.0, "tiny": 1e-9, "huge": 1e300, "count": 3}, 17)
@pytest.mark.filterwarnings("ignore:The measurement name:SyntaxWarning")
def test_a_line_is_what_influxdb_client_writes(
    measurement: str, tags: dict[str, str], fields: dict[str, int | float], time_ns: int
) -> None:
    theirs = Point.from_dict({"measurement": measurement, "tags": tags, "fields": fields, "time": time_ns})
    assert line_of(measurement, tags, fields, time_ns) == str(theirs)
