//! A faithful stand-in for the Office 365 Management Activity API.
