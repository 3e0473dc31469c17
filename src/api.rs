//! The Management Activity API as the rest of the connector sees it.
