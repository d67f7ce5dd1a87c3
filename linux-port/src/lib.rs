//! SimpleVPN on Linux.
