"""Prints a workbook as JSON, read by openpyxl: what stands in each cell, and as what."""

import datetime
import json
import sys

import openpyxl
from openpyxl.utils.escape import unescape


def cell(cell):
    value = cell.value
    if value is None:
        return None
    if cell.data_type == "f" or cell.hyperlink is not None:
        return {"formula or link": str(value)}
    if isinstance(value, bool):
        return value
    if isinstance(value, datetime.datetime):
        return {cell.number_format: value.isoformat()}
    if isinstance(value, str):
        text = unescape(value)
        return {"guarded": text} if cell.quotePrefix else text
    return value


def width(sheet, column):
    # Columns of one width that lie side by side are one entry of the file.
    for it in sheet.column_dimensions.values():
        if it.min <= column <= it.max:
            return int(it.width)
    return None


def sheet(sheet):
    header = sheet[1] if sheet.max_row else []
    return {
        "name": sheet.title,
        "frozen": sheet.freeze_panes,
        "bold": all(cell.font.b for cell in header),
        "widths": [width(sheet, cell.column) for cell in header],
        "rows": [[cell(it) for it in row] for row in sheet.iter_rows()],
    }


workbook = openpyxl.load_workbook(sys.argv[1])
print(json.dumps([sheet(it) for it in workbook.worksheets]))
