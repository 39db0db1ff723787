//! Where the cells of feature maps are.

/// The strides of the feature maps of YOLOX and of the built-in layout, in the order of their rows.
pub const STRIDES: [u32; 3] = [8, 16, 32];

/// Those of NanoDet-Plus and PicoDet.
pub(super) const STRIDES_OF_FOUR: [u32; 4] = [8, 16, 32, 64];

/// How many anchors a tensor of `size` (width, height) has; `None` if its sides are no multiples of the largest
/// stride.
pub fn anchor_count(size: (u32, u32)) -> Option<usize> {
    let [.., largest] = STRIDES;
    let whole = size.0 > 0 && size.1 > 0 && size.0.is_multiple_of(largest) && size.1.is_multiple_of(largest);
    whole.then(|| cell_count(size, &STRIDES))
}

/// How many cells the feature maps of these strides have. A cell that hangs over the edge is one.
pub(super) fn cell_count(size: (u32, u32), strides: &[u32]) -> usize {
    strides.iter().map(|stride| size.0.div_ceil(*stride) as usize * size.1.div_ceil(*stride) as usize).sum()
}

/// The cell of a feature map: where it is, counted in cells, and how large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) column: f32,
    pub(super) row: f32,
    pub(super) stride: f32,
}

/// The cell that belongs to a row of a tensor with the feature maps of `strides` one after the other.
pub(super) fn cell(index: usize, size: (u32, u32), strides: &[u32]) -> Option<Cell> {
    let mut left = index;
    for &stride in strides {
        let (width, height) = (size.0.div_ceil(stride) as usize, size.1.div_ceil(stride) as usize);
        if left < width * height {
            let (column, row) = (left % width, left / width);
            return Some(Cell { column: column as f32, row: row as f32, stride: stride as f32 });
        }
        left -= width * height;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_counted_for_whole_grids_only() {
        for (size, count) in [
            ((64, 32), Some(8 * 4 + 4 * 2 + 2)),
            ((416, 416), Some(3549)),
            ((512, 320), Some(3360)),
            ((100, 64), None),
            ((0, 32), None),
        ] {
            assert_eq!(anchor_count(size), count, "{size:?}");
        }
        // PP-PicoDet at 608x800: the last map has 10 by 13 cells, half of one hangs over.
        assert_eq!(cell_count((608, 800), &STRIDES_OF_FOUR), 7600 + 1900 + 475 + 130);
    }

    #[test]
    fn cells_follow_row_by_row_and_map_by_map() {
        for (index, expected) in [
            (0, Some((0.0, 0.0, 8.0))),
            (17, Some((1.0, 2.0, 8.0))),
            (33, Some((1.0, 0.0, 16.0))),
            (41, Some((1.0, 0.0, 32.0))),
            (42, None),
        ] {
            let found = cell(index, (64, 32), &STRIDES).map(|cell| (cell.column, cell.row, cell.stride));
            assert_eq!(found, expected, "{index}");
        }
    }
}
