"""Pure: decides what to bring to device memory before it is asked for, and what to evict.

Here are the words that planner and native layer exchange: `news` in, `orders` out.
"""

from pipellm.prefetch.news import News, What
from pipellm.prefetch.orders import Evict, Order, Transfer

__all__ = ["Evict", "News", "Order", "Transfer", "What"]
