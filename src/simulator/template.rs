//! A record as bytes with holes: what is the same in every record of a source, and where the rest goes.

use uuid::Uuid;

use super::random::mix;
use crate::domain::{ContentType, Source};

/// One order of members. The last is open and takes the filler.
#[derive(Debug)]
pub(super) struct Template {
    head: Vec<u8>,
    id_at: Option<usize>,
    time_at: usize,
    serial_at: usize,
    user_at: usize,
}

const ID: &str = "00000000-0000-0000-0000-000000000000";
const TIME: &str = "0000-00-00T00:00:00";
/// The user, up to the two digits that tell users apart.
const USER: &str = "employee";
/// The leading 9 puts every serial beyond 2^53, where an f64 would round it, and below 2^63.
const SERIAL: &str = "9000000000000000000";

impl Template {
    /// What follows the filler.
    pub(super) const TAIL: &[u8] = b"\"}";

    /// As usual, with its members in another order, and without `Id`.
    pub(super) fn set(source: Source) -> [Self; 3] {
        let members = members(source);
        let reversed = members.iter().rev().cloned().collect::<Vec<_>>();
        let nameless = members.iter().filter(|member| !member.starts_with("\"Id\"")).cloned().collect::<Vec<_>>();
        [Self::of(&members), Self::of(&reversed), Self::of(&nameless)]
    }

    /// Length without filler and tail.
    pub(super) fn bytes(&self) -> usize {
        self.head.len()
    }

    /// The head, its holes filled. `time` lacks the second, which is below 60; `user` is below 100.
    pub(super) fn write(&self, id: Uuid, time: [u8; 16], second: u64, user: u64, serial: u64, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(&self.head);
        let head = &mut out[from..];
        if let Some(at) = self.id_at {
            id.hyphenated().encode_lower(&mut head[at..at + ID.len()]);
        }
        head[self.time_at..self.time_at + 16].copy_from_slice(&time);
        digits(&mut head[self.time_at + 17..self.time_at + 19], second);
        digits(&mut head[self.user_at..self.user_at + 2], user);
        digits(&mut head[self.serial_at + 1..self.serial_at + SERIAL.len()], serial);
    }

    fn of(members: &[String]) -> Self {
        let head = format!("{{{},\"Note\":\"", members.join(","));
        let value_of = |name: &str| {
            let key = format!("\"{name}\":");
            head.find(&key).map(|at| at + key.len())
        };
        Self {
            id_at: value_of("Id").map(|at| at + 1),
            time_at: value_of("CreationTime").expect("every member list has it") + 1,
            serial_at: value_of("Serial").expect("every member list has it"),
            user_at: value_of("UserId").expect("every member list has it") + 1 + USER.len(),
            head: head.into_bytes(),
        }
    }
}

fn members(source: Source) -> Vec<String> {
    let (record_type, operation, workload) = match source.content_type {
        ContentType::AzureActiveDirectory => (15, "UserLoggedIn", "AzureActiveDirectory"),
        ContentType::Exchange => (50, "MailItemsAccessed", "Exchange"),
        ContentType::SharePoint => (6, "FileAccessed", "SharePoint"),
        ContentType::General => (25, "MessageSent", "MicrosoftTeams"),
        ContentType::Dlp => (13, "DlpRuleMatch", "Exchange"),
    };
    let mut members = vec![
        format!("\"CreationTime\":\"{TIME}\""),
        format!("\"Id\":\"{ID}\""),
        format!("\"Operation\":\"{operation}\""),
        format!("\"OrganizationId\":\"{}\"", source.tenant),
        format!("\"RecordType\":{record_type}"),
        "\"ResultStatus\":\"Succeeded\"".to_owned(),
        "\"UserKey\":\"10032001c0a17e51\"".to_owned(),
        "\"UserType\":0,\"Version\":1".to_owned(),
        format!("\"Workload\":\"{workload}\""),
        "\"ClientIP\":\"[2001:db8::17]:51234\"".to_owned(),
        format!("\"UserId\":\"{USER}00@contoso.example\""),
        format!("\"Serial\":{SERIAL}"),
        "\"AppAccessContext\":{\"AADSessionId\":\"022f6ffa-d9a8-58b3-bc0a-354faf31553c\",\"APIId\":\"\"}".to_owned(),
        "\"ObjectId\":\"https://contoso.example/sites/Finanzen/Lohnabrechnung – Müller & Söhne №7.pdf\"".to_owned(),
    ];
    if source.content_type == ContentType::Exchange {
        members.push("\"ClientInfoString\":\"Client=REST;Client=RESTSystem;;\"".to_owned());
    }
    members
}

/// Text to make records as long as asked for: words, so that it compresses about as records do.
#[derive(Debug)]
pub(super) struct Filler(Vec<u8>);

impl Filler {
    const BYTES: usize = 64 * 1024;

    pub(super) fn new(seed: u64) -> Self {
        let mut text = Vec::with_capacity(Self::BYTES + 16);
        let mut at = 0;
        while text.len() < Self::BYTES {
            let word = mix(seed, &[7, at]);
            let letters = (word >> 40).to_le_bytes();
            let length = 2 + word as usize % 7;
            text.extend(
                letters.iter().cycle().take(length).map(|letter| b"etaoinshrdlu0189"[usize::from(letter & 15)]),
            );
            text.push(b' ');
            at += 1;
        }
        text.truncate(Self::BYTES);
        Self(text)
    }

    /// `count` bytes of the endless filler that `seed` begins, from its byte `from` on.
    pub(super) fn copy(&self, seed: u64, from: usize, count: usize, out: &mut Vec<u8>) {
        let mut at = (mix(seed, &[8]) as usize % Self::BYTES + from) % Self::BYTES;
        let mut left = count;
        while left > 0 {
            let piece = left.min(Self::BYTES - at);
            out.extend_from_slice(&self.0[at..at + piece]);
            left -= piece;
            at = 0;
        }
    }
}

/// Writes `value` right-aligned into `out`, with zeros before it. What does not fit is cut on the left.
pub(super) fn digits(out: &mut [u8], value: u64) {
    let mut left = value;
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}
