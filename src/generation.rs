//! See ARCHITECTURE.md; this room is being built.
