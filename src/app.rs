//! The parts put together: load, build, serve, reload, stop.
