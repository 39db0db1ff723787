//! Real streams against an independent parser, written ones for what no encoder at hand does, and hostile ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// The streams of `tests/bitstream` (its `make.sh` says how they were made): name, codec, bytes, expected slices.
fn fixtures() -> Vec<(String, Codec, Vec<u8>, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bitstream");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let fixture = |file: PathBuf| {
        let codec = match file.extension()?.to_str()? {
            "h264" => Codec::H264,
            "h265" => Codec::H265,
            _ => return None,
        };
        let name = file.file_stem()?.to_string_lossy().into_owned();
        let expected = std::fs::read_to_string(file.with_extension("txt")).unwrap();
        Some((name, codec, std::fs::read(&file).unwrap(), expected))
    };
    files.into_iter().filter_map(fixture).collect()
}

/// Parts a byte stream before each access unit delimiter.
fn access_units(codec: Codec, stream: &[u8]) -> Vec<&[u8]> {
    let delimiter: [u8; 5] = match codec {
        Codec::H264 => [0, 0, 0, 1, 9],
        Codec::H265 => [0, 0, 0, 1, 35 << 1],
    };
    let mut starts: Vec<usize> = memchr::memmem::find_iter(stream, &delimiter).collect();
    starts.push(stream.len());
    starts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

#[test]
fn real_streams_say_what_an_independent_parser_reads_in_them() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 19, "{} fixtures", fixtures.len());
    for (name, codec, stream, expected) in fixtures {
        let units = access_units(codec, &stream);
        assert_eq!(units.len(), expected.lines().count(), "{name}: access units");
        let mut bitstream = Bitstream::new(codec);
        for (index, (unit, expected)) in units.into_iter().zip(expected.lines()).enumerate() {
            let facts = bitstream.access_unit(unit);
            let slices: Vec<(Kind, f32)> = expected.split(' ').map(slice).collect();
            assert_eq!(usize::from(facts.slices), slices.len(), "{name}, unit {index}: slices");
            assert_eq!(Some(facts.kind), slices.iter().map(|slice| slice.0).max(), "{name}, unit {index}");
            let quantiser = facts.quantiser.unwrap_or_else(|| panic!("{name}, unit {index}: no quantiser"));
            let least = slices.iter().map(|slice| slice.1).fold(f32::INFINITY, f32::min);
            let most = slices.iter().map(|slice| slice.1).fold(f32::NEG_INFINITY, f32::max);
            assert!((least..=most).contains(&quantiser), "{name}, unit {index}: {quantiser}, not {expected}");
            assert!(facts.bytes > 0 && facts.bytes + facts.filler < unit.len(), "{name}, unit {index}");
            // Delimiter, parameter sets, SEI and start codes of a keyframe, delimiter and start codes of others.
            let rest = unit.len() - facts.bytes - facts.filler;
            assert!(
                facts.keyframe || index == 0 || rest < 80,
                "{name}, unit {index}: {rest} bytes unaccounted for"
            );
        }
    }
}

/// Clips of other encoders and cameras: slices, pictures by kind (I, P, B) and the sum of all slice quantisers, by
/// ffmpeg's trace_headers.
const CLIPS: &[(&str, u32, [u32; 3], f64)] = &[
    ("ahmetozlu-pedestrian3", 692, [13, 679, 0], 22707.0),
    ("ahmetozlu-vehicle3", 905, [19, 886, 0], 28568.0),
    ("fire979-fire1-seq", 55, [8, 14, 33], 952.0),
    ("fire979-fire2-seq", 255, [2, 64, 189], 5773.0),
    ("fire979-newsmoke1-seq", 150, [5, 38, 107], 974.0),
    ("fire979-newsmoke2-seq", 205, [12, 52, 141], 3716.0),
    ("fire979-smoke1-seq", 60, [8, 14, 38], 866.0),
    ("frigate-motion1", 813, [7, 225, 581], 18394.0),
    ("furg-house6", 899, [10, 889, 0], 14471.0),
    ("intel-car-detection", 377, [7, 370, 0], 8104.0),
    ("intel-one-by-one-person-detection", 1394, [140, 434, 820], 40670.0),
    ("intel-people-detection-preview", 23, [1, 6, 16], 514.0),
    ("intel-store-aisle-detection-preview", 67, [1, 21, 45], 1588.0),
    ("intel-worker-zone-detection-preview", 71, [1, 18, 52], 1639.0),
    ("pipeless-cats", 223, [3, 74, 146], 4479.0),
    ("pipeless-onnx-yolo-input", 126, [2, 45, 79], 3876.0),
    ("roboflow-example", 431, [5, 118, 308], 12516.0),
];

#[test]
fn real_footage_says_what_an_independent_parser_reads_in_it() {
    let videos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/videos");
    if !videos.is_dir() {
        eprintln!("skipped: no ../shared/data/videos");
        return;
    }
    for (clip, slices, kinds, quantisers) in CLIPS {
        let Some(stream) = byte_stream(&videos.join(format!("{clip}.mp4"))) else { return };
        let mut bitstream = Bitstream::new(Codec::H264);
        let (mut seen_slices, mut seen_kinds, mut seen_quantisers) = (0, [0; 3], 0.0);
        for unit in access_units(Codec::H264, &stream) {
            let facts = bitstream.access_unit(unit);
            seen_slices += u32::from(facts.slices);
            seen_kinds[facts.kind as usize] += 1;
            // One slice a picture in all of them, so that the mean is the slice's.
            seen_quantisers += f64::from(facts.quantiser.unwrap_or(f32::NAN));
        }
        assert_eq!((seen_slices, seen_kinds, seen_quantisers), (*slices, *kinds, *quantisers), "{clip}");
    }
}

/// A clip's stream with delimiters, by the command ffmpeg.
fn byte_stream(clip: &Path) -> Option<Vec<u8>> {
    let run = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(clip)
        .args([
            "-c:v",
            "copy",
            "-an",
            "-bsf:v",
            "h264_mp4toannexb,h264_metadata=aud=insert",
            "-f",
            "h264",
            "-",
        ])
        .output();
    match run {
        Ok(output) if output.status.success() => Some(output.stdout),
        other => {
            eprintln!("skipped: ffmpeg cannot read {clip:?}: {other:?}");
            None
        }
    }
}

fn slice(text: &str) -> (Kind, f32) {
    let kind = match &text[..1] {
        "I" => Kind::Intra,
        "P" => Kind::Predicted,
        "B" => Kind::Bidirectional,
        other => panic!("{other} is no slice type"),
    };
    (kind, text[1..].parse().unwrap())
}

/// `K` keyframe, `R` recovery point, `i` `p` `b` by kind; upper-case where others refer to it.
fn pattern(name: &str) -> String {
    let (_, codec, stream, _) =
        fixtures().into_iter().find(|fixture| fixture.0 == name).unwrap_or_else(|| panic!("no {name}"));
    let mut bitstream = Bitstream::new(codec);
    let mut letter = |unit: &[u8]| {
        let facts = bitstream.access_unit(unit);
        let letter = match facts.kind {
            _ if facts.keyframe => 'K',
            _ if facts.recovery_point => 'R',
            Kind::Intra => 'i',
            Kind::Predicted => 'p',
            Kind::Bidirectional => 'b',
        };
        if facts.reference { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    };
    access_units(codec, &stream).into_iter().map(&mut letter).collect()
}

#[test]
fn keyframes_recovery_points_and_references() {
    for (name, expected) in [
        ("x264-constant-qp", "KPPKPBbPKP"),
        ("x264-intra-refresh", "KKPPPPPRPPPP"),
        ("x264-open-gop", "KPPPPRPBbRBb"),
        ("x264-scaling-lists", "KIPBbbbb"),
        ("x265-open-gop", "KKPBbKBbPPBb"),
        ("x265-temporal-layers", "KPBbbbPBbb"),
    ] {
        assert_eq!(pattern(name), expected, "{name}");
    }
}

#[test]
fn filler_is_no_complexity() {
    let (_, codec, stream, _) =
        fixtures().into_iter().find(|fixture| fixture.0 == "x264-cbr-filler").unwrap();
    let mut bitstream = Bitstream::new(codec);
    let units = access_units(codec, &stream);
    let facts: Vec<UnitFacts> = units.iter().map(|unit| bitstream.access_unit(unit)).collect();
    let filler: usize = facts.iter().map(|facts| facts.filler).sum();
    assert!(filler > 0 && filler < stream.len(), "{filler} of {}", stream.len());
}

#[test]
fn slices_weigh_by_their_bytes() {
    let mut sum = Sum::default();
    sum.slice(300, Some(Slice { kind: Kind::Predicted, quantiser: Some(30) }));
    sum.slice(100, Some(Slice { kind: Kind::Intra, quantiser: Some(22) }));
    sum.slice(999, None);
    sum.slice(999, Some(Slice { kind: Kind::Predicted, quantiser: None }));
    let facts = sum.done();
    assert_eq!((facts.quantiser, facts.bytes, facts.slices), (Some(28.0), 2398, 4));
    assert_eq!(facts.kind, Kind::Predicted);
}

#[test]
fn without_its_parameter_sets_a_stream_still_has_sizes() {
    for (name, codec, stream, _) in fixtures() {
        let mut facts =
            access_units(codec, &stream).into_iter().map(|unit| Bitstream::new(codec).access_unit(unit));
        let facts = facts.find(|facts| !facts.keyframe).unwrap_or_else(|| panic!("{name}: keyframes only"));
        assert_eq!(facts.quantiser, None, "{name}");
        assert!(facts.bytes > 0 && facts.slices > 0, "{name}");
    }
}

/// Writes what [`bits::Bits`] reads.
#[derive(Default)]
struct Writer(String);

impl Writer {
    /// Bits as text, spaces for reading.
    fn bits(mut self, bits: &str) -> Self {
        self.0.extend(bits.chars().filter(|bit| "01".contains(*bit)));
        self
    }

    fn ue(self, values: &[u32]) -> Self {
        values.iter().fold(self, |writer, value| {
            let code = format!("{:b}", value + 1);
            writer.bits(&"0".repeat(code.len() - 1)).bits(&code)
        })
    }

    fn se(self, values: &[i32]) -> Self {
        values.iter().fold(self, |writer, value| {
            let code = if *value > 0 { 2 * *value - 1 } else { -2 * *value };
            writer.ue(&[code as u32])
        })
    }

    /// A NAL unit after a start code, with its trailing bits and its emulation prevention bytes.
    fn unit(self, header: &[u8]) -> Vec<u8> {
        let mut text = self.0 + "1";
        text.push_str(&"0".repeat(text.len().next_multiple_of(8) - text.len()));
        let mut unit = [&[0, 0, 0, 1], header].concat();
        let mut zeros = 0;
        for at in (0..text.len()).step_by(8) {
            let byte = u8::from_str_radix(&text[at..at + 8], 2).unwrap();
            if zeros >= 2 && byte <= 3 {
                unit.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            unit.push(byte);
        }
        unit
    }
}

fn write() -> Writer {
    Writer::default()
}

/// What the encoders at hand do not do. ffmpeg's trace_headers reads the same quantisers in these units.
#[test]
fn h264_headers_with_everything_in_them() {
    // Profile 244, 4:4:4 in separate planes, scaling lists, pic_order_cnt_type 1, fields.
    let sequence = write()
        .bits("11110100 00000000 00101000") // profile, constraints, level
        .ue(&[3, 3]) // id, chroma_format_idc
        .bits("1") // separate_colour_plane_flag
        .ue(&[0, 0])
        .bits("0 1") // scaling matrix
        .bits("1")
        .se(&[0, 0, 1, -1, 2, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) // a list of 16
        .bits("1")
        .se(&[-8]) // a list that ends at once
        .bits("0000000000")
        .ue(&[4, 1]) // frame_num of 8 bits, pic_order_cnt_type
        .bits("0")
        .se(&[-1, 1])
        .ue(&[2])
        .se(&[5, -70000])
        .ue(&[4])
        .bits("0")
        .ue(&[4, 0])
        .bits("0 0 1 0 0") // fields allowed
        .unit(&[0x67]);
    // Slice groups of type 6, every flag on.
    let picture = write()
        .ue(&[7, 3]) // ids
        .bits("1 1") // CABAC, bottom_field_pic_order_in_frame_present_flag
        .ue(&[2, 6, 4])
        .bits("00 01 10 01 00") // three slice groups
        .ue(&[1, 0]) // references
        .bits("1 01") // weights told
        .se(&[-6, 0, 3])
        .bits("1 0 1") // deblocking control, redundant pictures
        .unit(&[0x68]);
    let frame = |slice_type: u32| write().ue(&[0, slice_type, 7]).bits("10 00000000 0");
    let modification = |writer: Writer| writer.bits("1").ue(&[0, 5, 1, 9, 2, 0, 3]);
    let marking = |writer: Writer| writer.bits("1").ue(&[1, 4, 2, 0, 3, 1, 1, 4, 2, 6, 0, 5, 0]);

    let predicted = frame(5).se(&[1, -2]).ue(&[0]).bits("1").ue(&[2]); // 3 references
    let predicted = modification(predicted).ue(&[5]);
    let predicted = predicted.bits("1").se(&[3, -4]).bits("0 1").se(&[100, 100]); // weights
    let predicted = marking(predicted).ue(&[2]).se(&[11]).unit(&[0x61]);

    let field = write().ue(&[0, 6, 7]).bits("01 00000001 1 1").se(&[4]).ue(&[0]).bits("1 0");
    let field = modification(modification(field)).ue(&[0]).bits("0 0 1").se(&[1, 1]);
    let field = field.ue(&[0]).se(&[-13]).unit(&[0x01]); // nothing refers to it

    let intra = write().ue(&[0, 7, 7]).bits("00 00000000 0").ue(&[17]).se(&[0, 0]).ue(&[0]);
    let intra = intra.bits("0 1").se(&[-20]).unit(&[0x65]);

    let mut bitstream = Bitstream::new(Codec::H264);
    assert_eq!(
        bitstream.access_unit(&[sequence, picture].concat()),
        UnitFacts { kind: Kind::Predicted, ..UnitFacts::default() }
    );
    for (unit, keyframe, kind, reference, quantiser) in [
        (&intra, true, Kind::Intra, true, 0.0),
        (&predicted, false, Kind::Predicted, true, 31.0),
        (&field, false, Kind::Bidirectional, false, 7.0),
    ] {
        let expected = UnitFacts {
            keyframe,
            kind,
            reference,
            bytes: unit.len() - 4,
            slices: 1,
            quantiser: Some(quantiser),
            ..UnitFacts::default()
        };
        assert_eq!(bitstream.access_unit(unit), expected);
    }
    // A slice of another view or layer says nothing, and a set that was broken is forgotten.
    let other_view = [&[0, 0, 0, 1, 0x74][..], &intra[5..]].concat();
    assert_eq!(bitstream.access_unit(&other_view).slices, 0);
    let broken = write().ue(&[7, 99]).unit(&[0x68]);
    assert_eq!(bitstream.access_unit(&[broken, intra].concat()).quantiser, None);
}

/// What the encoders at hand do not do. ffmpeg's trace_headers reads the same quantisers in these units.
#[test]
fn h265_headers_with_everything_in_them() {
    let profile = "0".repeat(88); // emulation prevention, too
    let sequence = write()
        .bits("0000 010 1") // two temporal sub-layers above the first
        .bits(&profile)
        .bits("01011101")
        .bits("11 01 00 00 00 00 00 00") // the first says profile and level, the second its level
        .bits(&profile)
        .bits("01011101")
        .bits("01011101")
        .ue(&[2, 1, 1920, 1080])
        .bits("1")
        .ue(&[0, 0, 0, 4])
        .ue(&[0, 0, 4]) // order count of 8 bits
        .bits("1")
        .ue(&[4, 2, 0, 4, 2, 0, 4, 2, 0])
        .ue(&[0, 3, 0, 3, 1, 1]) // coding tree blocks of 64: 30 x 17
        .bits("1 1"); // scaling lists told
    let sequence = (0..4).fold(sequence, |writer, size| {
        (0..if size == 3 { 2 } else { 6 }).fold(writer, |writer, matrix| match matrix {
            0 => writer.bits("0").ue(&[0]),
            _ => writer.bits("1").se(if size > 1 { &[7] } else { &[] }).se(&vec![
                1;
                if size == 0 {
                    16
                } else {
                    64
                }
            ]),
        })
    });
    let sequence = sequence
        .bits("1 1") // AMP, SAO
        .bits("1 0111 0111")
        .ue(&[0, 2])
        .bits("1") // PCM
        .ue(&[3]) // short-term sets
        .ue(&[2, 1])
        .ue(&[0])
        .bits("1")
        .ue(&[1])
        .bits("1")
        .ue(&[0])
        .bits("0") // -1, -3, +1 unused
        .bits("1 1")
        .ue(&[0])
        .bits("1 1 1 1") // the first, one further into the past: -2, -4, (0 is the picture itself: gone), -1
        .bits("0")
        .ue(&[1, 0])
        .ue(&[3])
        .bits("1") // -4
        .bits("1")
        .ue(&[2])
        .bits("00000001 1 00000010 0") // long-term candidates: one used, one not
        .bits("1 1 0 0") // temporal vectors
        .unit(&[66, 1]);
    let picture = write()
        .ue(&[5, 2])
        .bits("1 1 010 0 1") // dependent segments, output flag, two extra bits, CABAC initialisation
        .ue(&[1, 1])
        .se(&[4])
        .bits("0 0 1")
        .ue(&[1])
        .se(&[-2, 2])
        .bits("1 1 1 0 1 0") // both weighted, tiles
        .ue(&[1, 2])
        .bits("0")
        .ue(&[9, 5, 5])
        .bits("1")
        .bits("1 1 1 0")
        .se(&[1, -1])
        .bits("0 1") // no scaling lists; list modification
        .ue(&[0])
        .bits("1 1 00000000") // slice header extension, extension flags
        .unit(&[68, 1]);

    let intra =
        write().bits("1 0").ue(&[5]).bits("10").ue(&[2]).bits("1").bits("11").se(&[-7]).unit(&[38, 1]);
    // Second slice at block 300 of 510. Set 1 has three pictures in use, then a long-term candidate and two of its own,
    // of which one is used: five in all, so that a list entry has three bits.
    let both = write().bits("0").ue(&[5]).bits("0 100101100").bits("00").ue(&[0]).bits("1");
    let both = both.bits("00001111 1 01").ue(&[1, 2]).bits("0 1").ue(&[3]);
    let both = both.bits("00000001 1 0 00000011 0 0").bits("1"); // long-term; temporal vectors
    let both = both.bits("1 0").bits("1").ue(&[2, 0]); // SAO, three and one references
    let both = both.bits("1 000 001 100 0").bits("1 0").bits("0"); // entries, mvd_l1_zero, cabac_init, collocated in list 1
    let both = both.ue(&[5]).se(&[-1]).bits("101 010").se(&[1, 2, 3, 4, 1, 2, 3, 4]); // weights of list 0
    let both = both.bits("0 1").se(&[9, 9, 9, 9]).ue(&[3]).se(&[12]).unit(&[2, 1]);
    // A set of its own, told as a change of the last of the sequence: -4 becomes -5, kept for others, and itself -1. One
    // picture in use: no list modification.
    let predicted = write().bits("1").ue(&[5]).bits("00").ue(&[1]).bits("1").bits("00010000 0");
    let predicted = predicted.bits("1").ue(&[0]).bits("1").ue(&[0]).bits("01 1").ue(&[0, 0]).bits("0");
    let predicted = predicted.bits("11").bits("0").bits("1");
    let predicted = predicted.ue(&[0]).se(&[0]).bits("00 00").ue(&[0]).se(&[3]).unit(&[0, 1]);
    let mut finest = predicted.clone();
    finest[5] = 3; // TemporalId 2
    let dependent = write().bits("0").ue(&[5]).bits("1 100101101").bits(&"10".repeat(400)).unit(&[2, 1]);

    let mut bitstream = Bitstream::new(Codec::H265);
    bitstream.access_unit(&[sequence, picture].concat());
    for (units, keyframe, kind, reference, quantiser, slices) in [
        (vec![&intra], true, Kind::Intra, true, 23.0, 1),
        (vec![&both], false, Kind::Bidirectional, true, 42.0, 1),
        (vec![&both, &dependent], false, Kind::Bidirectional, true, 42.0, 2),
        (vec![&predicted], false, Kind::Predicted, true, 33.0, 1), // a finer sub-layer may refer to it
        (vec![&finest], false, Kind::Predicted, false, 33.0, 1),
    ] {
        let expected = UnitFacts {
            keyframe,
            kind,
            reference,
            bytes: units.iter().map(|unit| unit.len() - 4).sum(),
            slices,
            quantiser: Some(quantiser),
            ..UnitFacts::default()
        };
        let unit: Vec<u8> = units.into_iter().flatten().copied().collect();
        assert_eq!(bitstream.access_unit(&unit), expected);
    }
    let finer_layer = [&[0, 0, 0, 1, 38, 9][..], &intra[6..]].concat();
    assert_eq!(bitstream.access_unit(&finer_layer).slices, 0);
}

/// The first unit of a stream, damaged.
fn damaged() -> impl Strategy<Value = (Codec, Vec<u8>)> {
    let fixtures = fixtures();
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12);
    (prop::sample::select(fixtures), damage, any::<prop::sample::Index>()).prop_map(
        |((_, codec, mut stream, _), damage, cut)| {
            // Most damage at the front, where the parameter sets are.
            for (at, value) in damage {
                let at = at.index(stream.len());
                let at = if value % 4 == 0 { at } else { at % 120 };
                stream[at] = value;
            }
            stream.truncate(cut.index(stream.len()));
            (codec, stream)
        },
    )
}

proptest! {
    #[test]
    fn hostile_bytes_do_no_harm((codec, stream) in damaged()) {
        let mut bitstream = Bitstream::new(codec);
        for unit in access_units(codec, &stream).into_iter().chain([&stream[..]]) {
            lawful(&bitstream.access_unit(unit), unit);
        }
    }

    #[test]
    fn noise_does_no_harm(h265: bool, noise in proptest::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..600)) {
        let codec = if h265 { Codec::H265 } else { Codec::H264 };
        let sets = fixtures().into_iter().find(|fixture| fixture.1 == codec).unwrap().2;
        let mut bitstream = Bitstream::new(codec);
        bitstream.access_unit(&sets);
        lawful(&bitstream.access_unit(&noise), &noise);
    }
}

fn lawful(facts: &UnitFacts, unit: &[u8]) {
    assert!(facts.bytes + facts.filler <= unit.len());
    assert!(facts.quantiser.is_none_or(|quantiser| (-48.0..=51.0).contains(&quantiser)));
    assert!(facts.quantiser.is_none() || facts.slices > 0);
    assert!(facts.slices > 0 || facts.bytes == 0 || !facts.keyframe);
}
