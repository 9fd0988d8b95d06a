"""Cells of CSV files that a spreadsheet shows and does not run.

Excel, LibreOffice and Google Sheets take a cell of a CSV file that begins with `=`, `+`, `-` or `@` for a formula,
which can start programs and send other cells elsewhere; some look past white space, quotation marks and signs of no
width first. Such a text is given one `'` more in front, which they all take for "this is text", as OWASP advises
(https://owasp.org/www-community/attacks/CSV_Injection). Numbers are columns of numbers, and stay what they are.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_MARK = "'"
_BEFORE = "[\\s\\pZ\\pC\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb\uff02\uff07]*"
"""What a program may drop before it looks at a cell's first character: white space, control characters and signs of no
width, and quotation marks."""
_STARTS = "[=+\\-@\uff1d\uff0b\uff0d\uff20\u2212\ufe62\ufe63\ufe66\ufe6b]"
"""Formulas begin so; the full-width and small forms and the minus of mathematics among them."""
_RUN = f"^(?:'*[\\t\\r\\n]|{_BEFORE}{_STARTS})"


def guarded(rows: pa.Table) -> pa.Table:
    """The table with every text cell that a spreadsheet may run marked as text; all other columns are as they were."""
    for index, column in enumerate(rows.columns):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            marked = pc.binary_join_element_wise(pa.scalar(_MARK, column.type), column, pa.scalar("", column.type))
            cells = pc.if_else(pc.match_substring_regex(column, _RUN), marked, column)
            rows = rows.set_column(index, rows.schema.field(index).with_type(column.type), cells)
    return rows
