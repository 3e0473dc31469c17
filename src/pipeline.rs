//! The rooms put together: listing, fetching, writing.
