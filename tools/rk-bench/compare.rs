//! The same measurements of two servers by turns, so that what else the machine does falls on both,
//! and the ratios of their medians.

use std::net::SocketAddr;

use clap::{Args, Parser};
use serde::Serialize;

use crate::cell::Cell;
use crate::generator;
use crate::report::Report;

/// Two servers and what to measure.
#[derive(Args)]
pub(crate) struct Compare {
    /// The server under test.
    #[arg(long, value_parser = crate::address)]
    ours: SocketAddr,
    /// Its process.
    #[arg(long)]
    ours_pid: Option<u32>,
    /// The server it is compared with.
    #[arg(long, value_parser = crate::address)]
    theirs: SocketAddr,
    /// Its process.
    #[arg(long)]
    theirs_pid: Option<u32>,
    /// Alternating pairs for each cell.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// A cell, as the options of `run` in one argument; may be repeated. Without any: sequential
    /// and deep setData, deep getData.
    #[arg(long = "cell", allow_hyphen_values = true)]
    cells: Vec<String>,
}

/// Parses the options of one cell.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct CellLine {
    #[command(flatten)]
    cell: Cell,
}

/// Medians of one cell, and theirs over ours or ours over theirs so that 1 is equal.
#[derive(Serialize)]
struct Row {
    cell: Cell,
    pairs: usize,
    ours: Side,
    theirs: Side,
    /// Ours over theirs: below 1 is faster.
    p50_ratio: f64,
    /// Ours over theirs: above 1 is more.
    rate_ratio: f64,
    /// Ours over theirs: below 1 is less.
    cpu_ratio: Option<f64>,
}

#[derive(Serialize)]
struct Side {
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: Option<f64>,
    resident: Option<u64>,
}

const DEFAULT_CELLS: [&str; 3] = [
    "--op set --sessions 1 --pipeline 1",
    "--op set --sessions 64 --pipeline 32",
    "--op get --sessions 64 --pipeline 32",
];

/// Measures and prints.
pub(crate) fn run(compare: &Compare, json: bool) -> Result<(), String> {
    if compare.pairs == 0 {
        return Err("--pairs must not be 0".to_owned());
    }
    let lines: Vec<&str> = match compare.cells.as_slice() {
        [] => DEFAULT_CELLS.to_vec(),
        given => given.iter().map(String::as_str).collect(),
    };
    let cells = lines.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    for cell in cells {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for pair in 0..compare.pairs {
            let mut measure_ours = || -> Result<(), String> {
                ours.push(generator::measure(compare.ours, &cell, compare.ours_pid)?);
                Ok(())
            };
            // Each goes first by turns.
            if pair % 2 == 0 {
                measure_ours()?;
            }
            theirs.push(generator::measure(compare.theirs, &cell, compare.theirs_pid)?);
            if pair % 2 == 1 {
                measure_ours()?;
            }
        }
        print(&row(cell, &ours, &theirs), json);
    }
    Ok(())
}

fn parse(line: &str) -> Result<Cell, String> {
    let parsed = CellLine::try_parse_from(line.split_whitespace());
    let cell = parsed.map_err(|error| format!("--cell {line:?}: {error}"))?.cell;
    cell.check().map(|()| cell)
}

fn row(cell: Cell, ours: &[Report], theirs: &[Report]) -> Row {
    let pairs = ours.len();
    let (ours, theirs) = (side(ours), side(theirs));
    Row {
        cell,
        pairs,
        p50_ratio: ours.p50_us / theirs.p50_us,
        rate_ratio: ours.rate / theirs.rate,
        cpu_ratio: ours.cpu_us.zip(theirs.cpu_us).map(|(ours, theirs)| ours / theirs),
        ours,
        theirs,
    }
}

fn side(reports: &[Report]) -> Side {
    let of = |value: &dyn Fn(&Report) -> f64| median(reports.iter().map(value).collect());
    let cpu: Option<Vec<f64>> = reports.iter().map(|report| report.server_cpu_us).collect();
    Side {
        rate: of(&|report| report.rate),
        p50_us: of(&|report| report.latency_us.p50),
        p99_us: of(&|report| report.latency_us.p99),
        cpu_us: cpu.map(median),
        resident: reports.last().and_then(|report| report.server_resident),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print(row: &Row, json: bool) {
    if json {
        println!("{}", serde_json::to_string(row).expect("numbers and names serialize"));
        return;
    }
    println!("{}, medians of {} pairs", row.cell.name(), row.pairs);
    for (name, side) in [("ours  ", &row.ours), ("theirs", &row.theirs)] {
        let cpu = side.cpu_us.map(|cpu| format!(", {cpu:.2} us cpu")).unwrap_or_default();
        println!(
            "  {name} {:.0}/s, p50 {:.0} us, p99 {:.0} us{cpu}",
            side.rate, side.p50_us, side.p99_us
        );
    }
    let cpu = row.cpu_ratio.map(|ratio| format!(", cpu {ratio:.2}")).unwrap_or_default();
    println!("  ratio  rate {:.2}, p50 {:.2}{cpu}", row.rate_ratio, row.p50_ratio);
}
