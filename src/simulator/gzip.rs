//! The gzip format without compression: legal for every reader, and cheap.

use bytes::Bytes;

/// Wraps chunks into one gzip member of stored blocks.
pub(super) struct Gzip<I> {
    chunks: I,
    crc: u32,
    length: u32,
    stage: Stage,
}

enum Stage {
    Head,
    Body,
    Done,
}

impl<I: Iterator<Item = Bytes>> Gzip<I> {
    pub(super) fn new(chunks: I) -> Self {
        Self { chunks, crc: !0, length: 0, stage: Stage::Head }
    }

    fn block(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(chunk.len() + 16);
        for piece in chunk.chunks(usize::from(u16::MAX)) {
            let length = piece.len() as u16;
            out.push(0);
            out.extend(length.to_le_bytes());
            out.extend((!length).to_le_bytes());
            out.extend_from_slice(piece);
        }
        self.crc = chunk.iter().fold(self.crc, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        });
        self.length = self.length.wrapping_add(chunk.len() as u32);
        out.into()
    }
}

impl<I: Iterator<Item = Bytes>> Iterator for Gzip<I> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Head => {
                self.stage = Stage::Body;
                Some(Bytes::from_static(&[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255]))
            }
            Stage::Body => match self.chunks.next() {
                Some(chunk) => Some(self.block(&chunk)),
                None => {
                    self.stage = Stage::Done;
                    let mut end = vec![1, 0, 0, 0xFF, 0xFF];
                    end.extend((!self.crc).to_le_bytes());
                    end.extend(self.length.to_le_bytes());
                    Some(end.into())
                }
            },
            Stage::Done => None,
        }
    }
}
