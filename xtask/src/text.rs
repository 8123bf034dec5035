//! Real text of a wanted size: the machine's own documentation, sources and headers.
