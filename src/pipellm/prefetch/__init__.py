"""Pure: decides what to bring to device memory before it is asked for, and what to evict."""

from pipellm.prefetch.news import News, What
from pipellm.prefetch.orders import Evict, Order, Transfer
from pipellm.prefetch.planner import TRANSFER, Planner
from pipellm.prefetch.tally import Tally

__all__ = ["TRANSFER", "Evict", "News", "Order", "Planner", "Tally", "Transfer", "What"]
