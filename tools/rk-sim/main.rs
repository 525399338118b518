//! `rk-sim`: runs, replays and checks simulation seeds.

fn main() {}
