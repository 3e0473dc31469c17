//! The result as a Markdown table, fit for docs/performance.md.

use std::fmt;

use crate::meter::Usage;

/// What one of the three did.
pub struct Row {
    pub name: &'static str,
    pub records: u64,
    pub bytes: u64,
    pub usage: Usage,
}

impl Row {
    fn micros(&self) -> f64 {
        self.usage.cpu_seconds * 1e6 / self.records as f64
    }
}

/// The connector beside its floors.
pub struct Table {
    pub connector: Row,
    pub curl: Row,
    pub producer: Row,
    pub broker_cpu_seconds: f64,
    pub simulator_cpu_seconds: f64,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | records | s | records/s | MB/s | CPU s | CPU-µs a record | peak MiB |")?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for row in [&self.connector, &self.curl, &self.producer] {
            let Usage { seconds, cpu_seconds, peak_bytes } = row.usage;
            writeln!(
                f,
                "| {} | {} | {seconds:.1} | {:.0} | {:.0} | {cpu_seconds:.2} | {:.2} | {} |",
                row.name,
                row.records,
                row.records as f64 / seconds,
                row.bytes as f64 / 1e6 / seconds,
                row.micros(),
                peak_bytes >> 20
            )?;
        }
        let floors = self.curl.usage.cpu_seconds + self.producer.usage.cpu_seconds;
        let ratio = self.connector.usage.cpu_seconds / floors;
        writeln!(f, "\nThe connector takes {ratio:.2} × the processor time of the two floors together.")?;
        let (broker, simulator) = (self.broker_cpu_seconds, self.simulator_cpu_seconds);
        write!(f, "Beside the connector the broker took {broker:.2} CPU s and the simulator {simulator:.2}.")
    }
}
