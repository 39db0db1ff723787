//! H.264: sequence and picture parameter sets, and slice headers as far as slice_qp_delta.

use std::collections::BTreeMap;

use super::bits::Bits;
use super::{Kind, Slice, Sum, nal};

/// The sets of a stream, by their ids: at most 32 and 256.
#[derive(Clone, Debug, Default)]
pub(super) struct ParameterSets {
    sequence: BTreeMap<u32, Sequence>,
    picture: BTreeMap<u32, Picture>,
}

/// Of a sequence parameter set, what a slice header depends on.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    separate_colour_planes: bool,
    monochrome: bool,
    frame_num_bits: u32,
    order: PictureOrder,
    frames_only: bool,
}

/// pic_order_cnt_type.
#[derive(Clone, Copy, Debug)]
enum PictureOrder {
    Lsb { bits: u32 },
    Deltas { always_zero: bool },
    Decoding,
}

/// Of a picture parameter set, what a slice header depends on.
#[derive(Clone, Copy, Debug)]
struct Picture {
    sequence: u32,
    cabac: bool,
    bottom_field_order: bool,
    references: [u32; 2],
    weighted_prediction: bool,
    weighted_bidirectional: bool,
    quantiser: i32,
    redundant_pictures: bool,
}

/// What nal_unit_type and nal_ref_idc say of a slice.
#[derive(Clone, Copy, Debug)]
struct Header {
    idr: bool,
    reference: bool,
}

impl ParameterSets {
    /// Takes a NAL unit in (clause 7.3.1).
    pub(super) fn read(&mut self, unit: &[u8], sum: &mut Sum) {
        let Some((&first, payload)) = unit.split_first() else { return };
        let (kind, reference) = (first & 0x1f, first & 0x60 != 0);
        match kind {
            // Slices; 2 is partition A of one, which holds the header.
            1 | 2 | 5 => {
                let header = Header { idr: kind == 5, reference };
                sum.facts.keyframe |= header.idr;
                sum.facts.reference |= reference;
                sum.slice(unit.len(), self.slice(&mut Bits::new(payload), header));
            }
            3 | 4 => sum.facts.bytes += unit.len(), // partitions B and C
            6 => sum.facts.recovery_point |= nal::announces_recovery(payload),
            7 => self.learn_sequence(&mut Bits::new(payload)),
            8 => self.learn_picture(&mut Bits::new(payload)),
            12 => sum.facts.filler += unit.len(),
            _ => {} // also the slices and sets of SVC and MVC: 14, 15, 20, 21
        }
    }

    /// A set that cannot be read makes the one before it doubtful, too.
    fn learn_sequence(&mut self, bits: &mut Bits<'_>) {
        let (Some(profile), Some(())) = (bits.bits(8), bits.skip(16)) else { return };
        let Some(id) = bits.ue_up_to(31) else { return };
        match sequence(bits, profile) {
            Some(set) => self.sequence.insert(id, set),
            None => self.sequence.remove(&id),
        };
    }

    fn learn_picture(&mut self, bits: &mut Bits<'_>) {
        let Some(id) = bits.ue_up_to(255) else { return };
        match picture(bits) {
            Some(set) => self.picture.insert(id, set),
            None => self.picture.remove(&id),
        };
    }

    /// Clause 7.3.3.
    fn slice(&self, bits: &mut Bits<'_>, header: Header) -> Option<Slice> {
        bits.ue()?; // first_mb_in_slice
        let slice_type = bits.ue_up_to(9)? % 5;
        let kind = match slice_type {
            0 | 3 => Kind::Predicted, // P, SP
            1 => Kind::Bidirectional,
            _ => Kind::Intra, // I, SI
        };
        Some(Slice { kind, quantiser: self.quantiser(bits, header, kind) })
    }

    /// The same, from pic_parameter_set_id on.
    fn quantiser(&self, bits: &mut Bits<'_>, header: Header, kind: Kind) -> Option<i32> {
        let picture = self.picture.get(&bits.ue()?)?;
        let sequence = self.sequence.get(&picture.sequence)?;
        if sequence.separate_colour_planes {
            bits.skip(2)?; // colour_plane_id
        }
        bits.skip(sequence.frame_num_bits)?;
        let field = !sequence.frames_only && bits.flag()?;
        if field {
            bits.flag()?; // bottom_field_flag
        }
        if header.idr {
            bits.ue()?; // idr_pic_id
        }
        let both_fields = picture.bottom_field_order && !field;
        match sequence.order {
            PictureOrder::Lsb { bits: lsb } => {
                bits.skip(lsb)?;
                if both_fields {
                    bits.se()?; // delta_pic_order_cnt_bottom
                }
            }
            PictureOrder::Deltas { always_zero: false } => {
                bits.se()?; // delta_pic_order_cnt[0]
                if both_fields {
                    bits.se()?; // delta_pic_order_cnt[1]
                }
            }
            PictureOrder::Deltas { always_zero: true } | PictureOrder::Decoding => {}
        }
        if picture.redundant_pictures {
            bits.ue()?; // redundant_pic_cnt
        }
        let lists = match kind {
            Kind::Intra => 0,
            Kind::Predicted => 1,
            Kind::Bidirectional => 2,
        };
        if kind == Kind::Bidirectional {
            bits.flag()?; // direct_spatial_mv_pred_flag
        }
        let mut references = picture.references;
        if lists > 0 && bits.flag()? {
            for count in &mut references[..lists] {
                *count = bits.ue_up_to(31)? + 1;
            }
        }
        for _ in 0..lists {
            skip_list_modification(bits)?;
        }
        let weighted = match kind {
            Kind::Intra => false,
            Kind::Predicted => picture.weighted_prediction,
            Kind::Bidirectional => picture.weighted_bidirectional,
        };
        if weighted {
            let colour = !sequence.monochrome && !sequence.separate_colour_planes;
            skip_weights(bits, &references[..lists], colour)?;
        }
        if header.reference {
            skip_reference_marking(bits, header.idr)?;
        }
        if picture.cabac && kind != Kind::Intra {
            bits.ue()?; // cabac_init_idc
        }
        let quantiser = picture.quantiser.checked_add(bits.se()?)?;
        // 7.4.3: from -QpBdOffset, which is 36 for the deepest samples, to 51.
        (-36..=51).contains(&quantiser).then_some(quantiser)
    }
}

/// Clause 7.3.2.1.1, from after seq_parameter_set_id as far as frame_mbs_only_flag.
fn sequence(bits: &mut Bits<'_>, profile: u32) -> Option<Sequence> {
    let (mut chroma, mut separate_colour_planes) = (1, false);
    if matches!(profile, 44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244) {
        chroma = bits.ue_up_to(3)?;
        separate_colour_planes = chroma == 3 && bits.flag()?;
        bits.ue_up_to(6)?; // bit_depth_luma_minus8
        bits.ue_up_to(6)?; // bit_depth_chroma_minus8
        bits.flag()?; // qpprime_y_zero_transform_bypass_flag
        if bits.flag()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    let frame_num_bits = bits.ue_up_to(12)? + 4;
    let order = match bits.ue()? {
        0 => PictureOrder::Lsb { bits: bits.ue_up_to(12)? + 4 },
        1 => {
            let always_zero = bits.flag()?;
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            for _ in 0..bits.ue_up_to(255)? {
                bits.se()?; // offset_for_ref_frame
            }
            PictureOrder::Deltas { always_zero }
        }
        2 => PictureOrder::Decoding,
        _ => return None,
    };
    bits.ue()?; // max_num_ref_frames
    bits.flag()?; // gaps_in_frame_num_value_allowed_flag
    bits.ue()?; // pic_width_in_mbs_minus1
    bits.ue()?; // pic_height_in_map_units_minus1
    let frames_only = bits.flag()?;
    Some(Sequence { separate_colour_planes, monochrome: chroma == 0, frame_num_bits, order, frames_only })
}

/// Clause 7.3.2.2, from after pic_parameter_set_id as far as redundant_pic_cnt_present_flag.
fn picture(bits: &mut Bits<'_>) -> Option<Picture> {
    let sequence = bits.ue_up_to(31)?;
    let cabac = bits.flag()?;
    let bottom_field_order = bits.flag()?;
    let groups = bits.ue_up_to(7)? + 1;
    if groups > 1 {
        skip_slice_groups(bits, groups)?;
    }
    let references = [bits.ue_up_to(31)? + 1, bits.ue_up_to(31)? + 1];
    let weighted_prediction = bits.flag()?;
    let weighted_bidirectional = bits.bits(2)? == 1; // 2 is implicit: no table
    let quantiser = bits.se()?.checked_add(26)?;
    bits.se()?; // pic_init_qs_minus26
    bits.se()?; // chroma_qp_index_offset
    bits.flag()?; // deblocking_filter_control_present_flag
    bits.flag()?; // constrained_intra_pred_flag
    let redundant_pictures = bits.flag()?;
    Some(Picture {
        sequence,
        cabac,
        bottom_field_order,
        references,
        weighted_prediction,
        weighted_bidirectional,
        quantiser,
        redundant_pictures,
    })
}

/// The part of clause 7.3.2.2 about slice groups.
fn skip_slice_groups(bits: &mut Bits<'_>, groups: u32) -> Option<()> {
    match bits.ue()? {
        0 => {
            for _ in 0..groups {
                bits.ue()?; // run_length_minus1
            }
        }
        2 => {
            for _ in 1..groups {
                bits.ue()?; // top_left
                bits.ue()?; // bottom_right
            }
        }
        3..=5 => {
            bits.flag()?; // slice_group_change_direction_flag
            bits.ue()?; // slice_group_change_rate_minus1
        }
        6 => {
            let width = super::bits::bits_for(groups);
            for _ in 0..=bits.ue()? {
                bits.skip(width)?; // slice_group_id: ends with the data, whatever the count says
            }
        }
        1 => {}
        _ => return None,
    }
    Some(())
}

/// Clause 7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8, 8);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?.clamp(-128, 127) + 256) % 256;
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Clause 7.3.3.1, one list.
fn skip_list_modification(bits: &mut Bits<'_>) -> Option<()> {
    if bits.flag()? {
        // Each turn reads a bit at least: the data ends it, if not the 3.
        while bits.ue_up_to(3)? != 3 {
            bits.ue()?; // abs_diff_pic_num_minus1, long_term_pic_num
        }
    }
    Some(())
}

/// Clause 7.3.3.2.
fn skip_weights(bits: &mut Bits<'_>, references: &[u32], colour: bool) -> Option<()> {
    bits.ue()?; // luma_log2_weight_denom
    if colour {
        bits.ue()?; // chroma_log2_weight_denom
    }
    for &count in references {
        for _ in 0..count {
            for numbers in if colour { &[2, 4][..] } else { &[2] } {
                if bits.flag()? {
                    for _ in 0..*numbers {
                        bits.se()?; // weight, offset
                    }
                }
            }
        }
    }
    Some(())
}

/// Clause 7.3.3.3.
fn skip_reference_marking(bits: &mut Bits<'_>, idr: bool) -> Option<()> {
    if idr {
        return bits.skip(2); // no_output_of_prior_pics_flag, long_term_reference_flag
    }
    if bits.flag()? {
        loop {
            match bits.ue()? {
                0 => break,
                1 | 2 | 4 | 6 => drop(bits.ue()?),
                3 => {
                    bits.ue()?;
                    bits.ue()?;
                }
                5 => {}
                _ => return None,
            }
        }
    }
    Some(())
}
