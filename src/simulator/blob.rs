//! A content on its way out: an array of records in chunks, whole or damaged as a fault says.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    records::{Fill, Slot},
    scenario::Layout,
    source::SimSource,
    template::Template,
};

/// Below the size from which the allocator would map and unmap every chunk.
const CHUNK: usize = 64 * 1024;

/// Where a blob breaks off, counted in records that are still whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Never: the array is closed.
    Nowhere,
    /// Behind a whole record, so that only the bracket tells.
    After(u64),
    Inside(u64),
    /// The array is closed, but early.
    Shorter(u64),
}

/// The chunks of one blob, made when they are asked for.
#[derive(Debug)]
pub(super) struct Blob {
    source: Arc<SimSource>,
    arrivals: Vec<u64>,
    arrival: usize,
    record: u32,
    written: u64,
    filling: Option<(Fill, usize)>,
    is_open: bool,
    is_done: bool,
    cut: Cut,
}

impl Blob {
    pub(super) fn new(source: Arc<SimSource>, arrivals: Vec<u64>) -> Self {
        Self {
            source,
            arrivals,
            arrival: 0,
            record: 0,
            written: 0,
            filling: None,
            is_open: false,
            is_done: false,
            cut: Cut::Nowhere,
        }
    }

    /// The same blob, broken off.
    pub(super) fn cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    /// How many records it holds when nothing is cut.
    pub(super) fn records(&self) -> u64 {
        self.arrivals.iter().map(|&i| u64::from(self.source.records.count(i))).sum()
    }

    fn next_slot(&mut self) -> Option<Slot> {
        while let Some(&arrival) = self.arrivals.get(self.arrival) {
            if self.record < self.source.records.count(arrival) {
                let slot = Slot { arrival, record: self.record };
                self.record += 1;
                return Some(slot);
            }
            (self.arrival, self.record) = (self.arrival + 1, 0);
        }
        None
    }

    fn marks(&self) -> (&'static [u8], &'static [u8], &'static [u8]) {
        match self.source.scenario.layout {
            Layout::Compact => (b"[", b",", b"]"),
            Layout::Spaced => (b"[\r\n  ", b" ,\r\n\t", b"\r\n]\r\n"),
        }
    }

    /// Starts the next record, or ends the array.
    fn step(&mut self, out: &mut Vec<u8>) {
        let (_, comma, close) = self.marks();
        if self.cut == Cut::After(self.written) {
            self.is_done = true;
            return;
        }
        let slot = if self.cut == Cut::Shorter(self.written) { None } else { self.next_slot() };
        let Some(slot) = slot else {
            out.extend_from_slice(close);
            self.is_done = true;
            return;
        };
        if self.written > 0 {
            out.extend_from_slice(comma);
        }
        let from = out.len();
        let source = Arc::clone(&self.source);
        let fill = source.records.write_head(slot, |i| source.arrivals.at(i), out);
        if self.cut == Cut::Inside(self.written) {
            out.truncate(from + (out.len() - from) / 2);
            self.is_done = true;
            return;
        }
        self.written += 1;
        self.filling = fill.map(|fill| (fill, 0));
    }

    fn go_on_filling(&mut self, fill: Fill, done: usize, out: &mut Vec<u8>) {
        let piece = (fill.bytes - done).min(CHUNK);
        self.source.records.fill(fill, done, piece, out);
        self.filling = Some((fill, done + piece)).filter(|&(fill, done)| done < fill.bytes);
        if self.filling.is_none() {
            out.extend_from_slice(Template::TAIL);
        }
    }
}

impl Iterator for Blob {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_done {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK + CHUNK / 4);
        if !self.is_open {
            out.extend_from_slice(self.marks().0);
            self.is_open = true;
        }
        while !self.is_done && out.len() < CHUNK {
            match self.filling {
                Some((fill, done)) => self.go_on_filling(fill, done, &mut out),
                None => self.step(&mut out),
            }
        }
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::{
        domain::{ContentType, Source},
        simulator::scenario::{BigArrival, History, SourceScenario, TenantScenario},
    };

    fn blob(scenario: SourceScenario) -> Blob {
        let source = Source { tenant: TenantScenario::default().id, content_type: ContentType::SharePoint };
        let source = SimSource::new(1, "2026-08-30T12:00:00Z".parse().unwrap(), source, scenario);
        Blob::new(Arc::new(source), vec![0, 1])
    }

    fn text(blob: Blob) -> String {
        String::from_utf8(blob.flatten().collect()).unwrap()
    }

    #[test]
    fn s40_s44_the_records_of_an_array_are_the_scripted_bytes_in_either_layout() {
        for layout in [Layout::Compact, Layout::Spaced] {
            let blob = blob(SourceScenario { samples: true, layout, ..SourceScenario::default() });
            let source = Arc::clone(&blob.source);
            let slots = [0, 1]
                .into_iter()
                .flat_map(|arrival| (0..source.records.count(arrival)).map(move |record| Slot { arrival, record }));
            let expected = slots.map(|slot| {
                let mut bytes = Vec::new();
                source.records.write(slot, |i| source.arrivals.at(i), &mut bytes);
                String::from_utf8(bytes).unwrap()
            });
            let text = text(blob);
            let records: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
            assert!(records.len() > 70);
            assert!(records.iter().map(|raw| raw.get().to_owned()).eq(expected));
        }
    }

    #[test]
    fn s42_a_record_of_many_chunks_is_one_record() {
        let big = vec![BigArrival { index: 0, records: 2, record_bytes: 9 << 20 }];
        let history = History { records: 0, ..SourceScenario::default().history };
        let text = text(blob(SourceScenario { big, history, ..SourceScenario::default() }));
        let records: Vec<&RawValue> = serde_json::from_str(&text).unwrap();
        assert_eq!(records.iter().map(|raw| raw.get().len()).collect::<Vec<_>>(), [9 << 20, 9 << 20]);
    }

    #[test]
    fn s42_a_cut_blob_ends_where_it_was_cut() {
        let cut = |cut| text(blob(SourceScenario::default()).cut(cut));
        let read = |text: &str| serde_json::from_str::<Vec<&RawValue>>(text).map(|records| records.len());
        let after = cut(Cut::After(3));
        assert!(after.ends_with("\"}") && read(&after).is_err());
        assert_eq!(read(&format!("{after}]")).unwrap(), 3);
        let inside = cut(Cut::Inside(3));
        assert!(read(&inside).is_err() && read(&format!("{inside}]")).is_err());
        assert_eq!(read(&cut(Cut::Shorter(3))).unwrap(), 3);
    }
}
