//! H.265: sequence and picture parameter sets, and slice headers as far as slice_qp_delta.
//!
//! Of the base layer. The screen content extensions put more into a slice header; no camera uses them, and what is read
//! of such a stream is out of range or wrong.

use std::collections::BTreeMap;

use super::bits::{Bits, bits_for};
use super::{Kind, Slice, Sum, nal};

/// The sets of a stream, by their ids: at most 16 and 64.
#[derive(Clone, Debug, Default)]
pub(super) struct ParameterSets {
    sequence: BTreeMap<u32, Sequence>,
    picture: BTreeMap<u32, Picture>,
}

/// Of a sequence parameter set, what a slice header depends on.
#[derive(Clone, Debug)]
struct Sequence {
    /// TemporalId of the finest sub-layer.
    finest: u32,
    separate_colour_planes: bool,
    monochrome: bool,
    address_bits: u32,
    order_bits: u32,
    adaptive_offset: bool,
    short_term: Vec<ReferenceSet>,
    /// Candidates for long-term references: whether each is used by the current picture. None at all where the
    /// sequence has no long-term references.
    long_term: Option<Vec<bool>>,
    temporal_vectors: bool,
}

/// Of a picture parameter set, what a slice header depends on.
#[derive(Clone, Copy, Debug)]
struct Picture {
    sequence: u32,
    dependent_segments: bool,
    output_flag: bool,
    extra_bits: u32,
    cabac_init: bool,
    references: [u32; 2],
    quantiser: i32,
    weighted_prediction: bool,
    weighted_bidirectional: bool,
    lists_modification: bool,
}

/// A short-term reference picture set (clause 7.4.8): for each picture its distance in output order, nearest past first,
/// then nearest future first, and whether the current picture uses it. At most 16.
type ReferenceSet = Vec<(i32, bool)>;

const MOST_REFERENCES: u32 = 16;

impl ParameterSets {
    /// Takes a NAL unit in (clauses 7.3.1.1 and 7.4.2.2).
    pub(super) fn read(&mut self, unit: &[u8], sum: &mut Sum) {
        let [first, second, payload @ ..] = unit else { return };
        let (kind, layer) = (first >> 1 & 0x3f, (first & 1) << 5 | second >> 3);
        if layer > 0 {
            return; // of another view or a finer layer
        }
        match kind {
            0..=9 | 16..=21 => {
                sum.facts.keyframe |= kind >= 16;
                // Even numbers below 16 are pictures that no other of their sub-layer refers to; finer sub-layers may.
                let finest = self.sequence.values().map(|set| set.finest).max();
                let temporal_id = u32::from(second & 7).saturating_sub(1);
                sum.facts.reference |= kind >= 16 || kind % 2 == 1 || finest != Some(temporal_id);
                sum.slice(unit.len(), self.slice(&mut Bits::new(payload), kind, sum.last));
            }
            33 => self.learn_sequence(&mut Bits::new(payload)),
            34 => self.learn_picture(&mut Bits::new(payload)),
            38 => sum.facts.filler += unit.len(),
            39 => sum.facts.recovery_point |= nal::announces_recovery(payload),
            _ => {}
        }
    }

    /// A set that cannot be read makes the one before it doubtful, too.
    fn learn_sequence(&mut self, bits: &mut Bits<'_>) {
        let Some((sub_layers, id)) = sequence_id(bits) else { return };
        match sequence(bits, sub_layers) {
            Some(set) => self.sequence.insert(id, set),
            None => self.sequence.remove(&id),
        };
    }

    fn learn_picture(&mut self, bits: &mut Bits<'_>) {
        let Some(id) = bits.ue_up_to(63) else { return };
        match picture(bits) {
            Some(set) => self.picture.insert(id, set),
            None => self.picture.remove(&id),
        };
    }

    /// Clause 7.3.6.1. A dependent slice segment goes on with the header of the slice `before`.
    fn slice(&self, bits: &mut Bits<'_>, nal_kind: u8, before: Option<Slice>) -> Option<Slice> {
        let first = bits.flag()?;
        if nal_kind >= 16 {
            bits.flag()?; // no_output_of_prior_pics_flag
        }
        let picture = self.picture.get(&bits.ue()?)?;
        let sequence = self.sequence.get(&picture.sequence)?;
        if !first {
            let dependent = picture.dependent_segments && bits.flag()?;
            if dependent {
                return before;
            }
            bits.skip(sequence.address_bits)?;
        }
        bits.skip(picture.extra_bits)?; // slice_reserved_flag
        let kind = match bits.ue()? {
            0 => Kind::Bidirectional,
            1 => Kind::Predicted,
            2 => Kind::Intra,
            _ => return None,
        };
        Some(Slice { kind, quantiser: quantiser(bits, nal_kind, kind, picture, sequence) })
    }
}

/// Clause 7.3.6.1 from after slice_type.
fn quantiser(
    bits: &mut Bits<'_>,
    nal_kind: u8,
    kind: Kind,
    picture: &Picture,
    sequence: &Sequence,
) -> Option<i32> {
    if picture.output_flag {
        bits.flag()?; // pic_output_flag
    }
    if sequence.separate_colour_planes {
        bits.skip(2)?; // colour_plane_id
    }
    let colour = !sequence.monochrome && !sequence.separate_colour_planes;
    let idr = matches!(nal_kind, 19 | 20);
    let (mut used, mut temporal_vectors) = (0, false);
    if !idr {
        bits.skip(sequence.order_bits)?; // slice_pic_order_cnt_lsb
        used = references_used(bits, sequence)?;
        temporal_vectors = sequence.temporal_vectors && bits.flag()?;
    }
    if sequence.adaptive_offset {
        bits.skip(if colour { 2 } else { 1 })?; // slice_sao_luma_flag, slice_sao_chroma_flag
    }
    let lists = match kind {
        Kind::Intra => 0,
        Kind::Predicted => 1,
        Kind::Bidirectional => 2,
    };
    if lists > 0 {
        let mut references = picture.references;
        if bits.flag()? {
            for count in &mut references[..lists] {
                *count = bits.ue_up_to(MOST_REFERENCES - 1)? + 1;
            }
        }
        if picture.lists_modification && used > 1 {
            for count in &references[..lists] {
                if bits.flag()? {
                    bits.skip(count * bits_for(used))?; // list_entry
                }
            }
        }
        if kind == Kind::Bidirectional {
            bits.flag()?; // mvd_l1_zero_flag
        }
        if picture.cabac_init {
            bits.flag()?; // cabac_init_flag
        }
        if temporal_vectors {
            let list = usize::from(kind == Kind::Bidirectional && !bits.flag()?); // collocated_from_l0_flag
            if references[list] > 1 {
                bits.ue()?; // collocated_ref_idx
            }
        }
        let weighted = match kind {
            Kind::Intra => false,
            Kind::Predicted => picture.weighted_prediction,
            Kind::Bidirectional => picture.weighted_bidirectional,
        };
        if weighted {
            skip_weights(bits, &references[..lists], colour)?;
        }
        bits.ue()?; // five_minus_max_num_merge_cand
    }
    let quantiser = picture.quantiser.checked_add(bits.se()?)?;
    // 7.4.7.1: from -QpBdOffset, which is 48 for the deepest samples, to 51.
    (-48..=51).contains(&quantiser).then_some(quantiser)
}

/// The part of clause 7.3.6.1 about reference picture sets: NumPicTotalCurr (clause 7.4.7.2).
fn references_used(bits: &mut Bits<'_>, sequence: &Sequence) -> Option<u32> {
    let sets = &sequence.short_term;
    let short_term = if bits.flag()? {
        let index = if sets.len() > 1 { bits.bits(bits_for(sets.len() as u32))? } else { 0 };
        count(sets.get(index as usize)?.iter().map(|(_, used)| *used))
    } else {
        count(reference_set(bits, sets, sets.len(), sets.len())?.iter().map(|(_, used)| *used))
    };
    let Some(candidates) = &sequence.long_term else { return Some(short_term) };
    let from_sequence = if candidates.is_empty() { 0 } else { bits.ue_up_to(MOST_REFERENCES * 2)? };
    let all = from_sequence + bits.ue_up_to(MOST_REFERENCES * 2)?;
    let mut long_term = 0;
    for index in 0..all {
        let used = if index < from_sequence {
            let index = if candidates.len() > 1 { bits.bits(bits_for(candidates.len() as u32))? } else { 0 };
            *candidates.get(index as usize)?
        } else {
            bits.skip(sequence.order_bits)?; // poc_lsb_lt
            bits.flag()? // used_by_curr_pic_lt_flag
        };
        long_term += u32::from(used);
        if bits.flag()? {
            bits.ue()?; // delta_poc_msb_cycle_lt
        }
    }
    Some(short_term + long_term)
}

fn count(used: impl Iterator<Item = bool>) -> u32 {
    used.map(u32::from).sum()
}

/// Clause 7.3.7, the set number `index` of `total`; it may be told as a change of an earlier one (7-61 and 7-62).
fn reference_set(
    bits: &mut Bits<'_>,
    sets: &[ReferenceSet],
    index: usize,
    total: usize,
) -> Option<ReferenceSet> {
    let mut set = ReferenceSet::new();
    if index > 0 && bits.flag()? {
        let back = if index == total { bits.ue()? as usize + 1 } else { 1 };
        let earlier = sets.get(index.checked_sub(back)?)?;
        let negative = bits.flag()?;
        let distance = bits.ue_up_to((1 << 15) - 1)? as i32 + 1;
        let shift = if negative { -distance } else { distance };
        // The pictures of the earlier set, then the picture itself that it belonged to.
        for from in earlier.iter().map(|(distance, _)| *distance).chain([0]) {
            let used = bits.flag()?;
            let kept = used || bits.flag()?; // use_delta_flag
            if kept && from + shift != 0 {
                set.push((from + shift, used));
            }
        }
        set.sort_by_key(|(distance, _)| (*distance > 0, distance.abs()));
    } else {
        let counts = [bits.ue_up_to(MOST_REFERENCES)?, bits.ue_up_to(MOST_REFERENCES)?];
        for (count, sign) in counts.into_iter().zip([-1, 1]) {
            let mut distance = 0;
            for _ in 0..count {
                distance += sign * (bits.ue_up_to((1 << 15) - 1)? as i32 + 1);
                set.push((distance, bits.flag()?));
            }
        }
    }
    (set.len() <= MOST_REFERENCES as usize).then_some(set)
}

/// Clause 7.3.2.2.1 as far as sps_seq_parameter_set_id: sps_max_sub_layers_minus1 and the id.
fn sequence_id(bits: &mut Bits<'_>) -> Option<(u32, u32)> {
    bits.skip(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.bits(3)?;
    bits.skip(1)?; // sps_temporal_id_nesting_flag
    // profile_tier_level, clause 7.3.3: profile and level of the whole, then those of the sub-layers that say them.
    bits.skip(88 + 8)?;
    let mut said = 0;
    for layer in 0..if sub_layers > 0 { 8 } else { 0 } {
        let (profile, level) = (bits.flag()?, bits.flag()?);
        if layer < sub_layers {
            said += if profile { 88 } else { 0 } + if level { 8 } else { 0 };
        }
    }
    bits.skip(said)?;
    Some((sub_layers, bits.ue_up_to(15)?))
}

/// Clause 7.3.2.2.1 from there as far as sps_temporal_mvp_enabled_flag.
fn sequence(bits: &mut Bits<'_>, sub_layers: u32) -> Option<Sequence> {
    let chroma = bits.ue_up_to(3)?;
    let separate_colour_planes = chroma == 3 && bits.flag()?;
    let (width, height) = (bits.ue()?, bits.ue()?);
    if bits.flag()? {
        for _ in 0..4 {
            bits.ue()?; // conformance window
        }
    }
    bits.ue_up_to(8)?; // bit_depth_luma_minus8
    bits.ue_up_to(8)?; // bit_depth_chroma_minus8
    let order_bits = bits.ue_up_to(12)? + 4;
    let layers = if bits.flag()? { sub_layers + 1 } else { 1 };
    for _ in 0..layers * 3 {
        bits.ue()?; // decoded picture buffering, reordering and latency
    }
    let block = bits.ue_up_to(3)? + 3 + bits.ue_up_to(3)?; // log2 of the coding tree block's side
    for _ in 0..4 {
        bits.ue()?; // transform block sizes and depths
    }
    if bits.flag()? && bits.flag()? {
        skip_scaling_lists(bits)?;
    }
    bits.flag()?; // amp_enabled_flag
    let adaptive_offset = bits.flag()?;
    if bits.flag()? {
        bits.skip(8)?; // PCM bit depths
        bits.ue()?;
        bits.ue()?;
        bits.flag()?;
    }
    let sets = bits.ue_up_to(64)? as usize;
    let mut short_term = Vec::with_capacity(sets);
    for index in 0..sets {
        short_term.push(reference_set(bits, &short_term, index, sets)?);
    }
    let long_term = if bits.flag()? {
        let candidates = bits.ue_up_to(32)?;
        let used = |_| bits.skip(order_bits).and_then(|()| bits.flag());
        Some((0..candidates).map(used).collect::<Option<Vec<bool>>>()?)
    } else {
        None
    };
    let temporal_vectors = bits.flag()?;
    let blocks = |side: u32| u64::from(side).div_ceil(1 << block);
    let address_bits =
        bits_for(u32::try_from(blocks(width) * blocks(height)).ok().filter(|n| *n <= 1 << 24)?);
    Some(Sequence {
        finest: sub_layers,
        separate_colour_planes,
        monochrome: chroma == 0,
        address_bits,
        order_bits,
        adaptive_offset,
        short_term,
        long_term,
        temporal_vectors,
    })
}

/// Clause 7.3.2.3.1, from after pps_pic_parameter_set_id as far as lists_modification_present_flag.
fn picture(bits: &mut Bits<'_>) -> Option<Picture> {
    let sequence = bits.ue_up_to(15)?;
    let dependent_segments = bits.flag()?;
    let output_flag = bits.flag()?;
    let extra_bits = bits.bits(3)?;
    bits.flag()?; // sign_data_hiding_enabled_flag
    let cabac_init = bits.flag()?;
    let references = [bits.ue_up_to(MOST_REFERENCES - 1)? + 1, bits.ue_up_to(MOST_REFERENCES - 1)? + 1];
    let quantiser = bits.se()?.checked_add(26)?;
    bits.skip(2)?; // constrained_intra_pred_flag, transform_skip_enabled_flag
    if bits.flag()? {
        bits.ue()?; // diff_cu_qp_delta_depth
    }
    bits.se()?; // pps_cb_qp_offset
    bits.se()?; // pps_cr_qp_offset
    bits.flag()?; // pps_slice_chroma_qp_offsets_present_flag
    let weighted_prediction = bits.flag()?;
    let weighted_bidirectional = bits.flag()?;
    bits.flag()?; // transquant_bypass_enabled_flag
    let tiles = bits.flag()?;
    bits.flag()?; // entropy_coding_sync_enabled_flag
    if tiles {
        let (columns, rows) = (bits.ue_up_to(19)?, bits.ue_up_to(21)?);
        if !bits.flag()? {
            for _ in 0..columns + rows {
                bits.ue()?; // width or height, minus 1
            }
        }
        bits.flag()?; // loop_filter_across_tiles_enabled_flag
    }
    bits.flag()?; // pps_loop_filter_across_slices_enabled_flag
    if bits.flag()? {
        bits.flag()?; // deblocking_filter_override_enabled_flag
        if !bits.flag()? {
            bits.se()?; // pps_beta_offset_div2
            bits.se()?; // pps_tc_offset_div2
        }
    }
    if bits.flag()? {
        skip_scaling_lists(bits)?;
    }
    let lists_modification = bits.flag()?;
    Some(Picture {
        sequence,
        dependent_segments,
        output_flag,
        extra_bits,
        cabac_init,
        references,
        quantiser,
        weighted_prediction,
        weighted_bidirectional,
        lists_modification,
    })
}

/// Clause 7.3.4.
fn skip_scaling_lists(bits: &mut Bits<'_>) -> Option<()> {
    for size in 0..4 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if bits.flag()? {
                if size > 1 {
                    bits.se()?; // scaling_list_dc_coef_minus8
                }
                for _ in 0..if size == 0 { 16 } else { 64 } {
                    bits.se()?; // scaling_list_delta_coef
                }
            } else {
                bits.ue()?; // scaling_list_pred_matrix_id_delta
            }
        }
    }
    Some(())
}

/// Clause 7.3.6.3. The references of a picture of one layer are other pictures, so that each has its flags.
fn skip_weights(bits: &mut Bits<'_>, references: &[u32], colour: bool) -> Option<()> {
    bits.ue()?; // luma_log2_weight_denom
    if colour {
        bits.se()?; // delta_chroma_log2_weight_denom
    }
    for &count in references {
        let luma = bits.bits(count)?;
        let chroma = if colour { bits.bits(count)? } else { 0 };
        // Unlike in H.264 the flags come first.
        for _ in 0..2 * luma.count_ones() + 4 * chroma.count_ones() {
            bits.se()?; // weight, offset
        }
    }
    Some(())
}
