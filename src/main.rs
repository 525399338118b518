//! The server program: reads its arguments and configuration, runs the shell, and turns the
//! outcome into an exit code.

fn main() {}
