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
    /// Ours over theirs: below 1 is less.
    resident_ratio: Option<f64>,
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
                ours.push(generator::measure_sound(compare.ours, &cell, compare.ours_pid)?);
                Ok(())
            };
            // Each goes first by turns.
            if pair % 2 == 0 {
                measure_ours()?;
            }
            theirs.push(generator::measure_sound(compare.theirs, &cell, compare.theirs_pid)?);
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
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        resident_ratio: ours
            .resident
            .zip(theirs.resident)
            .map(|(ours, theirs)| ours as f64 / theirs as f64),
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
    } else {
        println!("{}", text(row));
    }
}

fn text(row: &Row) -> String {
    let side = |side: &Side| {
        let cpu = side.cpu_us.map(|cpu| format!(", {cpu:.2} us cpu")).unwrap_or_default();
        let resident = side.resident.map(|bytes| format!(", {} KiB", bytes / 1024));
        let resident = resident.unwrap_or_default();
        let Side { rate, p50_us, p99_us, .. } = side;
        format!("{rate:.0}/s, p50 {p50_us:.0} us, p99 {p99_us:.0} us{cpu}{resident}")
    };
    let cpu = row.cpu_ratio.map(|ratio| format!(", cpu {ratio:.2}")).unwrap_or_default();
    let resident = row.resident_ratio.map(|ratio| format!(", memory {ratio:.2}"));
    let resident = resident.unwrap_or_default();
    format!(
        "{}, medians of {} pairs\n  ours   {}\n  theirs {}\n  ratio  rate {:.2}, p50 \
         {:.2}{cpu}{resident}",
        row.cell.name(),
        row.pairs,
        side(&row.ours),
        side(&row.theirs),
        row.rate_ratio,
        row.p50_ratio,
    )
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;
    use crate::report::Percentiles;

    fn report(cell: &Cell, rate: f64, usage: Option<(f64, u64)>) -> Report {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        histogram.record(100_000).unwrap();
        Report {
            cell: cell.clone(),
            requests: 1,
            errors: 0,
            unanswered: 0,
            seconds: 1.0,
            rate,
            latency_us: Percentiles::of(&histogram),
            server_cpu_us: usage.map(|(cpu, _)| cpu),
            server_resident: usage.map(|(_, resident)| resident),
            generator_cpu_us: 1.0,
        }
    }

    #[test]
    fn the_text_has_everything_that_was_measured() {
        let cell = parse("--op mix --reads 50 --sessions 2 --pipeline 3").unwrap();
        let ours = report(&cell, 300.0, Some((1.5, 10 << 20)));
        let theirs = report(&cell, 100.0, Some((3.0, 40 << 20)));
        assert_eq!(
            text(&row(cell.clone(), std::slice::from_ref(&ours), &[theirs])),
            "mix of 50% reads 2x3 100 B 1000 znodes, medians of 1 pairs\n  \
             ours   300/s, p50 100 us, p99 100 us, 1.50 us cpu, 10240 KiB\n  \
             theirs 100/s, p50 100 us, p99 100 us, 3.00 us cpu, 40960 KiB\n  \
             ratio  rate 3.00, p50 1.00, cpu 0.50, memory 0.25"
        );
        // Whose process is not named has neither.
        let theirs = report(&cell, 100.0, None);
        let shown = text(&row(cell, &[ours], &[theirs]));
        assert!(shown.ends_with("ratio  rate 3.00, p50 1.00"), "{shown}");
    }
}
