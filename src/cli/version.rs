//! `o365feed version`: what this build is made of, for a report of a fault.

/// Version, librdkafka's version and the platform, in one line.
pub(super) fn text() -> String {
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("o365feed {} (librdkafka {librdkafka}, {os} {arch})\n", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_names_the_library_that_speaks_to_kafka() {
        assert!(super::text().starts_with(&format!("o365feed {} (librdkafka 2.", env!("CARGO_PKG_VERSION"))));
    }
}
