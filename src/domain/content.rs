//! The nouns everybody shares: tenant, content type, source, listed content, and the two identities.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A Microsoft 365 tenant, by its GUID. Prints in lower case with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub Uuid);

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// The five content types a client can subscribe to.
///
/// Source: Activity API reference, "Content types".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContentType {
    AzureActiveDirectory,
    Exchange,
    SharePoint,
    General,
    Dlp,
}

impl ContentType {
    pub const ALL: [Self; 5] = [Self::AzureActiveDirectory, Self::Exchange, Self::SharePoint, Self::General, Self::Dlp];

    /// The canonical spelling, as sent to the API and used in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AzureActiveDirectory => "Audit.AzureActiveDirectory",
            Self::Exchange => "Audit.Exchange",
            Self::SharePoint => "Audit.SharePoint",
            Self::General => "Audit.General",
            Self::Dlp => "DLP.All",
        }
    }

    /// One byte that stands for the type in the ledger. Never reused for another type.
    pub fn code(self) -> u8 {
        match self {
            Self::AzureActiveDirectory => 1,
            Self::Exchange => 2,
            Self::SharePoint => 3,
            Self::General => 4,
            Self::Dlp => 5,
        }
    }

    /// The type that [`Self::code`] stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Compared without regard to case: the service stores the spelling of whoever subscribed first.
impl FromStr for ContentType {
    type Err = UnknownContentType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownContentType(text.to_owned()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no content type; the five are Audit.AzureActiveDirectory, Audit.Exchange, Audit.SharePoint, Audit.General and DLP.All"
)]
pub struct UnknownContentType(pub String);

/// A stream of contents: one content type of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    pub tenant: TenantId,
    pub content_type: ContentType,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.content_type)
    }
}

/// A content as a listing named it. The id says how it was cut, never what is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub source: Source,
    /// Opaque. The same records may come again under another id.
    pub content_id: String,
    /// As the service sent it; fetched only after its origin was checked.
    pub content_uri: String,
    /// When the content became visible. UTC.
    pub created: Timestamp,
    /// Until when it can be fetched. Read from the service, never computed. UTC.
    pub expires: Timestamp,
    /// The listing's JSON object exactly as received.
    pub raw: Bytes,
}

impl Listed {
    pub fn key(&self) -> ContentKey {
        ContentKey::of(&self.content_id)
    }
}

/// A content id folded to 16 bytes, for memories that hold millions of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentKey(pub [u8; 16]);

impl ContentKey {
    pub fn of(content_id: &str) -> Self {
        Self(fold(&[content_id.as_bytes()]))
    }
}

/// What makes a record the same record within its source: the GUID of its `Id`, or a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(pub [u8; 16]);

impl RecordId {
    /// A GUID in any letter case is its 16 bytes; any other text is hashed. The hash is cryptographic:
    /// whoever can write audit records must not be able to make one hide another.
    pub fn of_text(id: &str) -> Self {
        match (id.len(), Uuid::try_parse(id)) {
            (36, Ok(guid)) => Self(guid.into_bytes()),
            _ => Self(fold(&[b"id", id.as_bytes()])),
        }
    }

    /// For a record without a usable `Id`: its bytes and how many equal ones came before it in the same blob.
    pub fn of_bytes(record: &[u8], ordinal: u64) -> Self {
        Self(fold(&[b"bytes", &ordinal.to_be_bytes(), record]))
    }
}

fn fold(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_is_known_in_any_letter_case_and_by_its_code() {
        for kind in ContentType::ALL {
            assert_eq!(kind.as_str().to_uppercase().parse(), Ok(kind));
            assert_eq!(ContentType::from_code(kind.code()), Some(kind));
        }
        assert!("Audit.Sharepoint2".parse::<ContentType>().is_err());
    }

    #[test]
    fn a_guid_is_the_same_record_in_any_letter_case_and_other_texts_are_not() {
        let id = "A0FBEEBD-8CC6-5644-8500-4ACFFDC2E463";
        assert_eq!(RecordId::of_text(id), RecordId::of_text(&id.to_lowercase()));
        assert_ne!(RecordId::of_text("not-a-guid"), RecordId::of_text("NOT-A-GUID"));
        assert_ne!(RecordId::of_bytes(b"{}", 0), RecordId::of_bytes(b"{}", 1));
    }
}
