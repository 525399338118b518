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
    match text.contains(':') {
        true => parse_v6(text).map(IpAddr::V6),
        false => parse_v4(text).map(IpAddr::V4),
    }
}

/// A dotted quad. Apache reads each part as a number of Java's, so leading zeros and signs pass.
fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let parts: Option<Vec<u8>> = text
        .split('.')
        .map(|part| part.parse::<i32>().ok().and_then(|octet| u8::try_from(octet).ok()))
        .collect();
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(parts?).ok()?))
}

/// Eight groups, or fewer around one `::`. No zone, no embedded IPv4; signs pass, as above.
fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    let groups = |text: &str| -> Option<Vec<u16>> {
        let group = |group: &str| {
            let number = i32::from_str_radix(group, 16).ok().filter(|_| group.len() <= 4)?;
            u16::try_from(number & 0xffff).ok()
        };
        if text.is_empty() { Some(Vec::new()) } else { text.split(':').map(group).collect() }
    };
    let all = match text.split_once("::") {
        None => groups(text)?,
        Some((front, back)) => {
            let (mut front, back) = (groups(front)?, groups(back)?);
            let missing =
                8_usize.checked_sub(front.len() + back.len()).filter(|count| *count > 0)?;
            front.resize(front.len() + missing, 0);
            front.extend(back);
            front
        }
    };
    Some(Ipv6Addr::from(<[u16; 8]>::try_from(all).ok()?))
}
