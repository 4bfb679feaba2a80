"""What is said of the order of rows before any of them is sent."""

from __future__ import annotations

from datetime import timedelta

from pipelines.produce.checking import TickFiles
from pipelines.produce.errors import Mistaken, OutOfOrder
from pipelines.produce.order import Order
from pipelines.ticks.event_time import EPOCH


def check_order(order: Order, files: TickFiles, sorted_later: bool) -> None:
    """Raises `OutOfOrder` where workers would reject rows as late because of their order.

    Rows that are sorted before they are sent are only compared with what live has. Raises
    `Mistaken` where the zone of times was told by an order that is not that of time.
    """
    if files.any_doubled and order.late and order.is_newest_first:
        raise Mistaken(
            "the rows are newest first, so their order does not tell the doubled hour of autumn "
            "apart: turn the file around, or give times in UTC or with an offset"
        )
    if order.late and not sorted_later:
        raise OutOfOrder(_out_of_order(order, files))
    older, first, by = order.older_than_live
    if older:
        raise OutOfOrder(
            f"{_rows(older)} of {order.rows:,} are older than what live has of their symbols, and "
            f"would be rejected as late; the first is {files.named(first)}, {_span(by)} older. "
            "Nothing was sent. --allow-late sends them as they are"
        )


def _out_of_order(order: Order, files: TickFiles) -> str:
    place, by = order.first_late
    if order.is_newest_first:
        return (
            f"the rows are newest first: {order.late:,} of {order.rows:,} would be rejected as "
            f"late, the first is {files.named(place)}. Nothing was sent. --sort sends them in the "
            "order of their times"
        )
    late = f"{_rows(order.late)} of {order.rows:,} would be rejected as late"
    if order.far_ahead is not None:
        ahead, moment, held_up = order.far_ahead
        return (
            f"{files.named(ahead)} is far ahead ({_shown(moment)}): because of it "
            f"{_rows(held_up)} after it would be rejected as late, the first is "
            f"{files.named(place)}. Nothing was sent. Correct that row, or --sort sends all rows "
            "in the order of their times"
        )
    return (
        f"{late}, because they step back by more than {_span(order.skew_ns)} (skew); the first is "
        f"{files.named(place)}, {_span(by)} behind. Nothing was sent. --sort sends the rows in the "
        "order of their times, --allow-late as they are"
    )


def _rows(many: int) -> str:
    return "1 row" if many == 1 else f"{many:,} rows"


def _shown(nanoseconds: int) -> str:
    moment = EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _span(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    if seconds < 120:
        return f"{seconds:g} s"
    return str(timedelta(seconds=round(seconds)))
