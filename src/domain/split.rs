//! Cuts a blob (one JSON array, docs/api/contract.md 3.6) into its records while it arrives.
//! Only the record that is still arriving is held; no tree is built and nothing is re-serialised.

mod boundary; // where an element ends
mod oversize; // a record too large to hold, read as it passes

use std::{collections::HashMap, mem};

use self::{boundary::Boundary, oversize::Oversize};
use super::{
    RecordId,
    record::{Batch, Facts},
};

/// Turns a JSON array that arrives in any chunks into records. One for each attempt at a blob.
///
/// A byte-order mark and white space around the elements are passed over; an element may be any JSON value.
#[derive(Debug)]
pub struct Splitter {
    max_record_bytes: usize,
    place: Place,
    /// Bytes of the body in earlier chunks.
    taken: u64,
    /// Where the present element began, counted from the body's start.
    begun_at: u64,
    /// Of the present element, while there is one.
    boundary: Option<Boundary>,
    /// The present element's bytes from earlier chunks. Never more than `max_record_bytes`.
    held: Vec<u8>,
    /// Takes the place of `held` once the element is too large.
    oversize: Option<Oversize>,
    /// How often each record without a usable `Id` came, by the identity of the first (docs/exactly-once.md, rule 11).
    nameless: HashMap<RecordId, u64>,
}

/// What was read last, and so what may come next.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nothing but white space and so many bytes of the byte-order mark.
    Start {
        mark: usize,
    },
    Opened,
    /// Also while the record is still arriving: then `boundary` says so.
    AfterRecord,
    AfterComma,
    Closed,
    Refused(NotAnArray),
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The body is not the JSON array that a blob must be: cut off, damaged, or another thing altogether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no JSON array: {what} at byte {offset}")]
pub struct NotAnArray {
    /// Never a part of the body.
    pub what: &'static str,
    /// In bytes from the start of the body.
    pub offset: u64,
}

impl Splitter {
    /// `max_record_bytes`: a record with more is not held, and comes out as `oversize`.
    pub fn new(max_record_bytes: usize) -> Self {
        Self {
            max_record_bytes,
            place: Place::Start { mark: 0 },
            taken: 0,
            begun_at: 0,
            boundary: None,
            held: Vec::new(),
            oversize: None,
            nameless: HashMap::new(),
        }
    }

    /// Takes the body's next bytes and appends the records that end in them to `out`.
    ///
    /// # Errors
    /// [`NotAnArray`] at the first byte or element that cannot be; from then on every call gives the same answer.
    /// The records before it are in `out`.
    pub fn push(&mut self, chunk: &[u8], out: &mut Batch) -> Result<(), NotAnArray> {
        let mut at = 0;
        while at < chunk.len() {
            let offset = self.taken + at as u64;
            let step = match self.boundary {
                Some(boundary) => self.inside(boundary, &chunk[at..], out),
                None => match self.whole_record(&chunk[at..], out) {
                    Some(used) => Ok(used),
                    None => self.between(chunk[at], offset),
                },
            };
            match step {
                Ok(used) => at += used,
                Err(fault) => {
                    self.place = Place::Refused(fault);
                    self.boundary = None;
                    self.held = Vec::new();
                    return Err(fault);
                }
            }
        }
        self.taken += chunk.len() as u64;
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// [`NotAnArray`] unless the closing bracket was the last thing that came.
    pub fn finish(self) -> Result<(), NotAnArray> {
        match self.place {
            Place::Closed => Ok(()),
            Place::Refused(fault) => Err(fault),
            _ if self.taken == 0 => Err(NotAnArray { what: "nothing", offset: 0 }),
            _ => Err(NotAnArray { what: "the end before the closing bracket", offset: self.taken }),
        }
    }

    /// Bytes held of the record that is still arriving; never more than the largest record.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// The fast way for a record that begins and ends here, where one is due: read once, without looking for its end
    /// first. Gives how many bytes it had; `None` leaves everything to the way that knows all cases.
    fn whole_record(&mut self, bytes: &[u8], out: &mut Batch) -> Option<usize> {
        if !matches!(self.place, Place::Opened | Place::AfterComma) {
            return None;
        }
        let (facts, end) = Facts::of_first(bytes).filter(|(_, end)| *end <= self.max_record_bytes)?;
        let record = &bytes[..end];
        let identity = self.identify(facts.id.as_deref(), record);
        out.append(record, identity, &facts);
        self.place = Place::AfterRecord;
        Some(end)
    }

    /// Takes one byte outside of elements, or none when an element begins with it. Gives how many it took.
    fn between(&mut self, byte: u8, offset: u64) -> Result<usize, NotAnArray> {
        let fault = |what| Err(NotAnArray { what, offset });
        self.place = match (self.place, byte) {
            (Place::Refused(fault), _) => return Err(fault),
            (Place::Start { mark }, _) if offset == mark as u64 && BYTE_ORDER_MARK.get(mark) == Some(&byte) => {
                Place::Start { mark: mark + 1 }
            }
            (Place::Start { mark: 1 | 2 }, _) => return fault("a broken byte-order mark"),
            (same, b' ' | b'\t' | b'\r' | b'\n') => same,
            (Place::Start { .. }, b'[') => Place::Opened,
            (Place::Start { .. }, _) => return fault("something other than the opening bracket"),
            (Place::Opened | Place::AfterRecord, b']') => Place::Closed,
            (Place::AfterRecord, b',') => Place::AfterComma,
            (Place::AfterRecord, _) => return fault("neither comma nor closing bracket after a record"),
            (Place::Closed, _) => return fault("something after the closing bracket"),
            (Place::Opened | Place::AfterComma, _) => {
                self.boundary = Boundary::of_element(byte);
                self.begun_at = offset;
                if self.boundary.is_none() {
                    return fault("something that begins no JSON value");
                }
                self.place = Place::AfterRecord;
                return Ok(0);
            }
        };
        Ok(1)
    }

    /// Takes the bytes that belong to the present element. Gives how many those are.
    fn inside(&mut self, mut boundary: Boundary, bytes: &[u8], out: &mut Batch) -> Result<usize, NotAnArray> {
        let Some(end) = boundary.end_in(bytes) else {
            self.boundary = Some(boundary);
            self.hold(bytes);
            return Ok(bytes.len());
        };
        self.boundary = None;
        let tail = &bytes[..end];
        if self.held.is_empty() && self.oversize.is_none() && tail.len() <= self.max_record_bytes {
            self.emit(tail, out)?; // the common case: no byte is copied before it is in the batch
            return Ok(end);
        }
        self.hold(tail);
        match self.oversize.take() {
            Some(record) => self.emit_oversize(record, &boundary, out)?,
            None => {
                let record = mem::take(&mut self.held);
                self.emit(&record, out)?;
                self.held = record; // for its memory
                self.held.clear();
            }
        }
        Ok(end)
    }

    fn hold(&mut self, bytes: &[u8]) {
        if let Some(record) = &mut self.oversize {
            return record.take(bytes);
        }
        let needed = self.held.len() + bytes.len();
        if self.max_record_bytes < needed {
            let record = self.oversize.insert(Oversize::default());
            record.take(&mem::take(&mut self.held));
            return record.take(bytes);
        }
        if self.held.capacity() < needed {
            // Doubles as a Vec does, but never past the largest record.
            let room = needed.max(2 * self.held.capacity()).min(self.max_record_bytes);
            self.held.reserve_exact(room - self.held.len());
        }
        self.held.extend_from_slice(bytes);
    }

    fn emit(&mut self, record: &[u8], out: &mut Batch) -> Result<(), NotAnArray> {
        let Some(facts) = Facts::of(record) else {
            return Err(NotAnArray { what: "a record that is no JSON value", offset: self.begun_at });
        };
        let identity = self.identify(facts.id.as_deref(), record);
        out.append(record, identity, &facts);
        Ok(())
    }

    fn emit_oversize(&mut self, record: Oversize, boundary: &Boundary, out: &mut Batch) -> Result<(), NotAnArray> {
        if boundary.is_scalar() {
            // No number is as long as that: it is text, which the check of a whole element would have refused.
            return Err(NotAnArray { what: "an endless word", offset: self.begun_at });
        }
        let length = record.length();
        let (id, hash) = record.finish();
        let identity = self.identify(id.as_deref(), &hash);
        out.append_oversize(length, identity, id.as_deref());
        Ok(())
    }

    fn identify(&mut self, id: Option<&str>, bytes: &[u8]) -> RecordId {
        if let Some(id) = id {
            return RecordId::of_text(id);
        }
        let first = RecordId::of_bytes(bytes, 0);
        let before = self.nameless.entry(first).or_default();
        let identity = if *before == 0 { first } else { RecordId::of_bytes(bytes, *before) };
        *before += 1;
        identity
    }
}

#[cfg(test)]
mod tests;
