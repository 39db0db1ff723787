//! A byte stream into NAL units (Annex B of H.264 and of H.265), and the SEI messages of one.

use memchr::memmem;

/// The NAL units of an access unit, each with the padding after it: zeros that belong to no unit, and the words that
/// CABAC slices end with to keep a rate (cabac_zero_words, clause 7.3.2.10 of H.264). None is empty.
pub(super) fn units(stream: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut rest = memmem::find(stream, &[0, 0, 1]).map(|at| &stream[at + 3..]);
    let mut starts = memmem::find_iter(rest.unwrap_or_default(), &[0, 0, 1]);
    let mut passed = 0;
    std::iter::from_fn(move || {
        let from = rest?;
        let at = starts.next();
        let (unit, next) = match at {
            Some(at) => (&from[..at - passed], Some(&from[at - passed + 3..])),
            None => (from, None),
        };
        passed = at.map_or(passed, |at| at + 3);
        rest = next;
        let payload = without_padding(unit);
        // A start code of four bytes begins with a zero that is no padding.
        let start_code = usize::from(next.is_some() && payload.len() < unit.len());
        Some((payload, unit.len() - payload.len() - start_code))
    })
    .filter(|(unit, _)| !unit.is_empty())
}

fn without_padding(mut unit: &[u8]) -> &[u8] {
    loop {
        // A NAL unit never ends with a zero, and with an emulation prevention byte only after cabac_zero_words.
        unit = match unit {
            [rest @ .., 0] | [rest @ .., 0, 0, 3] => rest,
            _ => return unit,
        };
    }
}

/// Whether SEI messages (payload of the NAL unit, clause 7.3.2.3) hold a recovery point: type 6 in both standards.
pub(super) fn announces_recovery(mut messages: &[u8]) -> bool {
    // Emulation prevention bytes can stand before a recovery point only within longer messages, and then a size is
    // misread: the message is not found, and nothing else happens.
    while messages.len() > 2 {
        let Some((kind, rest)) = ff_coded(messages) else { return false };
        if kind == 6 {
            return true;
        }
        let Some((size, rest)) = ff_coded(rest) else { return false };
        messages = rest.get(size..).unwrap_or_default();
    }
    false
}

/// A number of which each byte 0xff adds 255 and goes on.
fn ff_coded(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let full = bytes.iter().take_while(|byte| **byte == 0xff).count();
    let last = usize::from(*bytes.get(full)?);
    Some((full * 255 + last, &bytes[full + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_of_either_length_part_the_units() {
        let check = |stream: &[u8], expected: &[(&[u8], usize)]| {
            assert_eq!(units(stream).collect::<Vec<_>>(), expected, "{stream:?}");
        };
        check(&[], &[]);
        check(&[9, 9, 9], &[]);
        check(&[0, 0, 1], &[]);
        check(&[0, 0, 0, 1, 5, 6], &[(&[5, 6], 0)]);
        check(&[0, 0, 1, 5, 6, 0, 0, 1, 7], &[(&[5, 6], 0), (&[7], 0)]);
        check(&[0, 0, 1, 5, 6, 0, 0, 0, 1, 7, 8], &[(&[5, 6], 0), (&[7, 8], 0)]);
        check(&[0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0], &[(&[5], 3), (&[7], 2)]);
        check(&[0, 0, 1, 0, 0, 1, 7], &[(&[7], 0)]);
        check(&[0, 0, 1, 5, 0, 0, 3, 0, 0, 3], &[(&[5], 6)]);
    }

    #[test]
    fn a_recovery_point_is_found_among_messages() {
        for (messages, expected) in [
            (&[6, 1, 0x84, 0x80][..], true),
            (&[1, 2, 7, 7, 6, 1, 0x84, 0x80], true),
            (&[5, 2, 6, 6, 0x80], false),
            (&[0xff, 0xff, 0xff], false),
            (&[5, 200, 1, 1, 1], false),
            (&[], false),
        ] {
            assert_eq!(announces_recovery(messages), expected, "{messages:?}");
        }
    }
}
