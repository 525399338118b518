//! Scheme `ip`: addresses and masks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address as Java prints it: IPv4 dotted, IPv6 as eight groups without compression.
pub(super) fn to_text(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|group| format!("{group:x}")).join(":"),
    }
}

/// Whether `id` may stand in an ACL.
pub(super) fn is_valid_id(id: &str) -> bool {
    parse(id).is_some()
}

/// Whether the address `held` lies in the range `id`. Families never match each other.
pub(super) fn matches(id: &str, held: &str) -> bool {
    let Some((range, bits)) = parse(id) else { return false };
    match (range, parse_address(held)) {
        (IpAddr::V4(range), Some(IpAddr::V4(held))) => {
            let shift = 32 - bits;
            range.to_bits().checked_shr(shift) == held.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(range), Some(IpAddr::V6(held))) => {
            let shift = 128 - bits;
            range.to_bits().checked_shr(shift) == held.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

/// Address and prefix length of `address[/bits]`.
fn parse(id: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match id.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (id, None),
    };
    let address = parse_address(address)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= width)?,
        None => width,
    };
    Some((address, bits))
}

fn parse_address(text: &str) -> Option<IpAddr> {
    parse_v4(text).map(IpAddr::V4).or_else(|| {
        // No zone, no embedded IPv4.
        let plain = !text.contains(['.', '%']);
        plain.then(|| text.parse::<Ipv6Addr>().ok()).flatten().map(IpAddr::V6)
    })
}

/// A dotted quad; leading zeros are allowed.
fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        *octet = part.trim_start_matches('0').parse().ok().or_else(|| {
            let zero = part.bytes().all(|byte| byte == b'0');
            (digits && zero).then_some(0)
        })?;
        if !digits {
            return None;
        }
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}
