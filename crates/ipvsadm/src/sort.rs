//! The order of listings, with its defect: differences of unsigned 32-bit numbers are taken as signed, so
//! that marks and addresses more than 2^31 apart order wrongly and circles of three are possible.
//!
//! Because of the circles the order is not a total one: the outcome depends on the algorithm, which
//! therefore is the C library's (a merge sort that halves from the top), and the standard library's sorts
//! must not be used.

use api::{Family, RealView, ServiceId, ServiceView};
use std::net::IpAddr;

/// Services in listing order.
pub(crate) fn services(services: &[ServiceView]) -> Vec<&ServiceView> {
    merge_sort(services.iter().collect(), &|a, b| compare_services(&a.id, &b.id))
}

/// Real servers in listing order. The order given should be newest first.
pub(crate) fn reals(reals: &[RealView]) -> Vec<&RealView> {
    merge_sort(reals.iter().collect(), &|a, b| {
        let address = compare_addresses(a.id.address, b.id.address);
        if address != 0 { address } else { i32::from(a.id.port) - i32::from(b.id.port) }
    })
}

fn compare_services(a: &ServiceId, b: &ServiceId) -> i32 {
    let (key_a, key_b) = (key(a), key(b));
    let steps = [
        difference(key_a.mark, key_b.mark),
        key_a.family - key_b.family,
        key_a.protocol - key_b.protocol,
        compare_addresses(key_a.address, key_b.address),
        key_a.port - key_b.port,
    ];
    steps.into_iter().find(|step| *step != 0).unwrap_or(0)
}

struct Key {
    mark: u32,
    family: i32,
    protocol: i32,
    address: IpAddr,
    port: i32,
}

fn key(id: &ServiceId) -> Key {
    let family = match id.family() {
        Family::Ipv4 => 4,
        Family::Ipv6 => 6,
    };
    match *id {
        ServiceId::Address { protocol, address, port } => {
            Key { mark: 0, family, protocol: protocol.number().into(), address, port: port.into() }
        }
        ServiceId::Fwmark { mark, .. } => {
            Key { mark, family, protocol: 0, address: IpAddr::from([0, 0, 0, 0]), port: 0 }
        }
    }
}

/// Word by word; an IPv4 address is one word followed by zeros, also beside IPv6 addresses.
fn compare_addresses(a: IpAddr, b: IpAddr) -> i32 {
    let pairs = words(a).into_iter().zip(words(b));
    pairs.map(|(a, b)| difference(a, b)).find(|d| *d != 0).unwrap_or(0)
}

fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [u32::from(v4), 0, 0, 0],
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            // Truncation picks the words out.
            [(bits >> 96) as u32, (bits >> 64) as u32, (bits >> 32) as u32, bits as u32]
        }
    }
}

/// The defect: reinterpreting the wrapped difference as signed.
fn difference(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// Merge sort: the first half has `n / 2` items, and of equal items the left one goes first.
fn merge_sort<T: Copy>(items: Vec<T>, compare: &dyn Fn(T, T) -> i32) -> Vec<T> {
    if items.len() <= 1 {
        return items;
    }
    let (left, right) = items.split_at(items.len() / 2);
    let left = merge_sort(left.to_vec(), compare);
    let right = merge_sort(right.to_vec(), compare);
    let mut merged = Vec::with_capacity(items.len());
    let (mut l, mut r) = (left.as_slice(), right.as_slice());
    while let ([first_l, rest_l @ ..], [first_r, rest_r @ ..]) = (l, r) {
        if compare(*first_l, *first_r) <= 0 {
            merged.push(*first_l);
            l = rest_l;
        } else {
            merged.push(*first_r);
            r = rest_r;
        }
    }
    merged.extend_from_slice(l);
    merged.extend_from_slice(r);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(addresses: &[&str]) -> Vec<String> {
        let parsed: Vec<IpAddr> = addresses.iter().map(|a| a.parse().expect("an address")).collect();
        merge_sort(parsed, &compare_addresses).into_iter().map(|a| a.to_string()).collect()
    }

    #[test]
    fn far_apart_addresses_order_wrongly() {
        assert_eq!(order(&["10.0.0.1", "192.0.2.1"]), ["192.0.2.1", "10.0.0.1"]);
        assert_eq!(order(&["::1", "fe80::1"]), ["fe80::1", "::1"]);
        assert_eq!(order(&["10.0.0.2", "10.0.0.1"]), ["10.0.0.1", "10.0.0.2"]);
    }

    #[test]
    fn a_long_list_in_reverse_is_sorted() {
        let reverse: Vec<u32> = (0..1000).rev().collect();
        let sorted = merge_sort(reverse, &difference);
        assert!(sorted.is_sorted());
        assert_eq!(sorted.len(), 1000);
    }
}
