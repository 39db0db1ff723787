//! Parts of a picture side by side in one tensor, each as large as it is worth: a close look at all that moves, which costs
//! no more than a look at the whole picture.

use crate::geometry::Rect;

/// An upright rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Left side.
    pub left: u32,
    /// Top side.
    pub top: u32,
    /// Width, at least one pixel.
    pub width: u32,
    /// Height, at least one pixel.
    pub height: u32,
}

impl Area {
    /// All of a picture.
    pub fn all_of(width: u32, height: u32) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    /// The same in planes of half the size, where it begins at even pixels.
    pub(crate) fn halved(self) -> Self {
        let half = |side: u32| side.div_ceil(2);
        Self { left: self.left / 2, top: self.top / 2, width: half(self.width), height: half(self.height) }
    }

    fn right(self) -> u32 {
        self.left + self.width
    }

    fn bottom(self) -> u32 {
        self.top + self.height
    }
}

/// A part of a picture, and where in a tensor it is drawn. Both have the same proportions, but for rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// In pixels of the picture, from even pixels on.
    pub part: Area,
    /// In pixels of the tensor.
    pub place: Area,
}

impl Placement {
    /// A box in pixels of the tensor as one in 0..1 of a picture of this size (width, height); `None` if it does not lie
    /// here, or if its object goes on beyond this part: such a box is not that of an object.
    pub(crate) fn to_picture(self, tensor: Rect, picture: (u32, u32)) -> Option<Rect> {
        let Self { part, place } = self;
        let centre = tensor.centre();
        let within = |at: f32, from: u32, to: u32| (from as f32..to as f32).contains(&at);
        if !within(centre.x, place.left, place.right()) || !within(centre.y, place.top, place.bottom()) {
            return None;
        }
        let cut = (part.left > 0 && tensor.left < place.left as f32 + EDGE)
            || (part.top > 0 && tensor.top < place.top as f32 + EDGE)
            || (part.right() < picture.0 && tensor.right() > place.right() as f32 - EDGE)
            || (part.bottom() < picture.1 && tensor.bottom() > place.bottom() as f32 - EDGE);
        let (across, down) =
            (part.width as f32 / place.width as f32, part.height as f32 / place.height as f32);
        let (width, height) = (picture.0 as f32, picture.1 as f32);
        (!cut).then(|| Rect {
            left: (part.left as f32 + (tensor.left - place.left as f32) * across) / width,
            top: (part.top as f32 + (tensor.top - place.top as f32) * down) / height,
            width: tensor.width * across / width,
            height: tensor.height * down / height,
        })
    }
}

/// Pixels of the tensor within which a box touches an edge.
const EDGE: f32 = 1.5;

/// How large a detector should see something.
#[derive(Clone, Copy)]
struct Enough {
    /// Pixels of the tensor on its longer side beyond which more of them tell nothing.
    pixels: f32,
    /// Pixels of the tensor for one of the picture, at most.
    magnified: f32,
}

const ENOUGH: Enough = Enough { pixels: 96.0, magnified: 1.0 };

/// What may be fire or smoke has no outline that would tell it when it is small, and in the pictures that models learn it from
/// it fills half of the picture: as large as there is room for beside all else.
const ENOUGH_OF_HAZARDS: [Enough; 3] = [
    Enough { pixels: 240.0, magnified: 2.4 },
    Enough { pixels: 192.0, magnified: 1.92 },
    Enough { pixels: 144.0, magnified: 1.44 },
];

/// Of the picture's longer side: lamps and red jackets are smaller, and look like a fire when they are blown up.
const MAGNIFIED_FROM: f32 = 0.1;

/// How much of its surroundings an object is shown with, on each side: in its own sides, and in pixels of the picture.
const MARGIN: f32 = 0.5;
const MARGIN_MIN: f32 = 16.0;

/// Pixels of the tensor between two parts, so that nobody is seen across them.
const GAP: u32 = 4;

/// Parts that are shown at once at most: more is a crowd, rain or a swaying tree, and the whole picture shows it.
const PARTS_MAX: usize = 16;

/// How much larger than in the whole picture something must be shown to be worth it.
const WORTH: f32 = 1.3;

/// What all parts are shrunk by until they fit.
const SHRINK: [f32; 6] = [1.0, 0.85, 0.72, 0.61, 0.52, 0.44];

/// A part before it has its place, in pixels of the picture.
#[derive(Clone, Copy)]
struct Part {
    sides: [f32; 4],
    /// The longer side of the largest object in it.
    object: f32,
    /// Whether one of them may be fire or smoke.
    hazard: bool,
}

impl Part {
    fn around(Object { bounds: object, hazard }: Object, (width, height): (f32, f32)) -> Self {
        let (across, down) = (object.width * width, object.height * height);
        let margin = |side: f32| (MARGIN * side).max(MARGIN_MIN);
        let (left, top) = (object.left * width - margin(across), object.top * height - margin(down));
        let (right, bottom) =
            (object.right() * width + margin(across), object.bottom() * height + margin(down));
        Self {
            sides: [left.max(0.0), top.max(0.0), right.min(width), bottom.min(height)],
            object: across.max(down),
            hazard: hazard && across.max(down) >= MAGNIFIED_FROM * width.max(height),
        }
    }

    fn touches(&self, other: &Self) -> bool {
        let ([left, top, right, bottom], [l, t, r, b]) = (self.sides, other.sides);
        left < r && l < right && top < b && t < bottom
    }

    fn join(&mut self, other: &Self) {
        let ([left, top, right, bottom], [l, t, r, b]) = (self.sides, other.sides);
        self.sides = [left.min(l), top.min(t), right.max(r), bottom.max(b)];
        self.object = self.object.max(other.object);
        self.hazard |= other.hazard;
    }

    /// Even pixels, but for the picture's far edges.
    fn area(&self, picture: (u32, u32)) -> Area {
        let from = |side: f32, limit: u32| (side as u32 & !1).min(limit.saturating_sub(1) & !1);
        let to = |side: f32, from: u32, limit: u32| ((side.ceil() as u32 + 1) & !1).clamp(from + 1, limit);
        let [left, top, right, bottom] = self.sides;
        let (left, top) = (from(left, picture.0), from(top, picture.1));
        let (right, bottom) = (to(right, left, picture.0), to(bottom, top, picture.1));
        Area { left, top, width: right - left, height: bottom - top }
    }
}

/// Something in a picture that is worth a close look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Where, in 0..1 of the picture.
    pub bounds: Rect,
    /// Whether it may be fire or smoke.
    pub hazard: bool,
}

/// Objects of a picture, and the picture's size (width, height).
pub type Sights<'a> = (&'a [Object], (u32, u32));

/// Places the surroundings of objects of one or several pictures in a tensor of this size (width, height), picture by
/// picture. `None` where that would show nothing of a picture much larger than all of it would be shown: nothing is small,
/// or too much is going on; and where several have less room together than each would have alone.
pub fn pack(pictures: &[Sights<'_>], tensor: (u32, u32)) -> Option<Vec<Vec<Placement>>> {
    let wanted: Vec<Wanted> =
        pictures.iter().map(|&(objects, size)| Wanted::of(objects, size, tensor)).collect::<Option<_>>()?;
    let place = |of_hazards: Enough, shrink: f32| {
        let mut parts = Vec::new();
        for (picture, wanted) in wanted.iter().enumerate() {
            let shrunk = wanted.shrunk(of_hazards, shrink)?;
            parts.extend(shrunk.map(|(area, scale)| (picture, area, scale)));
        }
        shelve(parts, pictures.len(), tensor)
    };
    let hazards = wanted.iter().flat_map(|wanted| &wanted.parts).any(|part| part.hazard);
    let (magnified, shrinks) = match (pictures.len(), hazards) {
        (1, true) => (&ENOUGH_OF_HAZARDS[..], &SHRINK[..]),
        (1, false) => (&[][..], &SHRINK[..]),
        (_, true) => (&ENOUGH_OF_HAZARDS[..1], &[][..]),
        (_, false) => (&[][..], &SHRINK[..1]),
    };
    let magnified = magnified.iter().map(|&enough| (enough, 1.0));
    let shrunk = shrinks.iter().map(|&shrink| (ENOUGH, shrink));
    magnified.chain(shrunk).find_map(|(of_hazards, shrink)| place(of_hazards, shrink))
}

/// Parts of one picture.
struct Wanted {
    parts: Vec<Part>,
    picture: (u32, u32),
    /// How large all of the picture would be shown, in pixels of the tensor for one of the picture.
    whole: f32,
}

impl Wanted {
    fn of(objects: &[Object], picture: (u32, u32), tensor: (u32, u32)) -> Option<Self> {
        let size = (picture.0 as f32, picture.1 as f32);
        let whole = f32::min(tensor.0 as f32 / size.0, tensor.1 as f32 / size.1);
        let parts = joined(objects.iter().map(|object| Part::around(*object, size)))?;
        Some(Self { parts, picture, whole })
    }

    /// The parts with their scales, none of them smaller than in all of the picture. `None` if none is much larger.
    fn shrunk(&self, of_hazards: Enough, shrink: f32) -> Option<impl Iterator<Item = (Area, f32)>> {
        let least = self.whole.min(1.0);
        let scale = move |part: &Part| {
            let Enough { pixels, magnified } = if part.hazard { of_hazards } else { ENOUGH };
            ((pixels / part.object.max(1.0)).clamp(least, magnified) * shrink).max(least)
        };
        let worth_it = self.parts.iter().any(|part| scale(part) >= WORTH * self.whole);
        worth_it.then(|| self.parts.iter().map(move |part| (part.area(self.picture), scale(part))))
    }
}

/// Parts that touch become one. `None` if there are too many, or none.
fn joined(parts: impl Iterator<Item = Part>) -> Option<Vec<Part>> {
    let mut apart: Vec<Part> = Vec::new();
    for mut part in parts {
        while let Some(other) = apart.iter().position(|other| other.touches(&part)) {
            part.join(&apart.swap_remove(other));
        }
        apart.push(part);
        if apart.len() > 2 * PARTS_MAX {
            return None; // before a snowfall is compared flake by flake
        }
    }
    (1..=PARTS_MAX).contains(&apart.len()).then_some(apart)
}

/// Parts, each of one of so many pictures, in rows from the top, the highest first. `None` if they do not fit.
fn shelve(
    mut parts: Vec<(usize, Area, f32)>,
    pictures: usize,
    tensor: (u32, u32),
) -> Option<Vec<Vec<Placement>>> {
    parts.sort_by(|(_, a, scale_a), (_, b, scale_b)| {
        (b.height as f32 * scale_b).total_cmp(&(a.height as f32 * scale_a))
    });
    let (mut left, mut top, mut row) = (0, 0, 0);
    let mut placements = vec![Vec::new(); pictures];
    for (picture, part, scale) in parts {
        let side = |side: u32| ((side as f32 * scale).round() as u32).max(1);
        let (width, height) = (side(part.width), side(part.height));
        if left + width > tensor.0 {
            (left, top, row) = (0, top + row + GAP, 0);
        }
        if width > tensor.0 || top + height > tensor.1 {
            return None;
        }
        placements[picture].push(Placement { part, place: Area { left, top, width, height } });
        left += width + GAP;
        row = row.max(height);
    }
    Some(placements)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HD: (u32, u32) = (1920, 1080);
    const TENSOR: (u32, u32) = (512, 320);

    /// An object by its centre and size in pixels of a 1080p picture.
    fn object(x: f32, y: f32, width: f32, height: f32) -> Object {
        let (w, h) = (HD.0 as f32, HD.1 as f32);
        let (left, top) = ((x - width / 2.0) / w, (y - height / 2.0) / h);
        Object { bounds: Rect { left, top, width: width / w, height: height / h }, hazard: false }
    }

    /// Of one picture.
    fn alone(objects: &[Object], picture: (u32, u32), tensor: (u32, u32)) -> Option<Vec<Placement>> {
        pack(&[(objects, picture)], tensor).map(|mut placements| placements.remove(0))
    }

    /// How much larger than in the whole picture each part is shown, in tenths; nothing if the whole picture is as good.
    fn enlarged(objects: &[Object]) -> Vec<u32> {
        let placements = alone(objects, HD, TENSOR).unwrap_or_default();
        let whole = TENSOR.0 as f32 / HD.0 as f32;
        let scale = |p: &Placement| p.place.height as f32 / p.part.height as f32;
        placements.iter().map(|placement| (10.0 * scale(placement) / whole).round() as u32).collect()
    }

    #[test]
    fn what_is_small_is_shown_at_its_own_size_and_what_is_large_as_large_as_is_enough() {
        let far = object(300.0, 200.0, 24.0, 60.0);
        assert_eq!(enlarged(&[far]), [37]); // pixel by pixel: 1920 / 512 is 3.75
        assert_eq!(enlarged(&[object(900.0, 500.0, 80.0, 192.0)]), [19]); // 96 of 192 pixels
        assert_eq!(enlarged(&[object(900.0, 500.0, 150.0, 350.0)]), [] as [u32; 0]); // no need
        assert_eq!(enlarged(&[object(1500.0, 700.0, 80.0, 192.0), far]), [19, 37]);
        assert_eq!(enlarged(&[]), [] as [u32; 0]);
    }

    #[test]
    fn fire_and_smoke_are_shown_larger_than_they_are() {
        let smoke = |side: f32| Object { hazard: true, ..object(300.0, 200.0, side, side / 2.0) };
        assert_eq!(enlarged(&[smoke(200.0)]), [45]); // 1.2 times as large as it is
        assert_eq!(enlarged(&[smoke(240.0)]), [37]); // pixel by pixel
        assert_eq!(enlarged(&[smoke(400.0)]), [22]); // 240 of 400 pixels
        assert_eq!(enlarged(&[smoke(60.0)]), [37]); // small, and so as anything
        assert_eq!(enlarged(&[smoke(800.0)]), [] as [u32; 0]);
        let beside = object(350.0, 230.0, 24.0, 60.0);
        assert_eq!(enlarged(&[smoke(240.0), beside]), [37], "with whoever stands in it");
        let flame = Object { hazard: true, ..object(900.0, 500.0, 90.0, 210.0) };
        assert_eq!(enlarged(&[flame]), [26]); // 144 pixels high: 192 do not fit with what is around it
        let far: Vec<Object> = (0..12).map(|i| object(100.0 + 150.0 * i as f32, 900.0, 24.0, 60.0)).collect();
        let with_far = [&[smoke(240.0)], &far[..]].concat();
        let shown = enlarged(&with_far);
        assert_eq!(
            shown.iter().filter(|&&tenths| tenths >= 37).count(),
            12,
            "nobody is shrunk for it: {shown:?}"
        );
    }

    #[test]
    fn who_walks_together_is_shown_together() {
        let pair = [object(300.0, 200.0, 24.0, 60.0), object(330.0, 204.0, 24.0, 60.0)];
        assert_eq!(enlarged(&pair).len(), 1);
        // Also where a third one joins two that were apart.
        let chain = [
            object(300.0, 200.0, 24.0, 60.0),
            object(400.0, 200.0, 24.0, 60.0),
            object(350.0, 200.0, 24.0, 60.0),
        ];
        assert_eq!(enlarged(&chain).len(), 1);
    }

    #[test]
    fn a_full_street_is_shrunk_and_a_snowfall_is_not_looked_at_closely() {
        let people = |count: u32, size: f32| -> Vec<Object> {
            let place =
                |i: u32| object((60 + i % 8 * 235) as f32, (90 + i / 8 * 220) as f32, size / 2.5, size);
            (0..count).map(place).collect()
        };
        assert!(enlarged(&people(4, 90.0)).iter().all(|&tenths| tenths >= 35));
        let full = enlarged(&people(16, 90.0));
        assert!(full.len() == 16 && full.iter().all(|tenths| (13..37).contains(tenths)), "{full:?}");
        assert_eq!(enlarged(&people(17, 20.0)), [] as [u32; 0]);
    }

    #[test]
    fn pictures_share_a_tensor_where_each_is_shown_as_large_as_alone() {
        let far = [object(300.0, 200.0, 24.0, 60.0)];
        let near = [object(900.0, 500.0, 80.0, 192.0)];
        let street: Vec<Object> =
            (0..6).map(|i| object(150.0 + 300.0 * i as f32, 500.0, 60.0, 150.0)).collect();
        let nothing_small = [object(900.0, 500.0, 150.0, 350.0)];
        let together = |pictures: &[&[Object]]| {
            let pictures: Vec<Sights<'_>> = pictures.iter().map(|&objects| (objects, HD)).collect();
            pack(&pictures, TENSOR)
        };
        let shared = together(&[&far, &near, &far]).unwrap();
        let sizes = |placements: &[Placement]| -> Vec<(u32, u32)> {
            placements.iter().map(|placement| (placement.place.width, placement.place.height)).collect()
        };
        for (objects, placements) in [&far, &near, &far].into_iter().zip(&shared) {
            assert_eq!(sizes(placements), sizes(&alone(objects, HD, TENSOR).unwrap()));
        }
        assert!(alone(&street, HD, TENSOR).is_some());
        assert_eq!(together(&[&street, &street]), None, "no room for both as large as alone");
        assert_eq!(together(&[&far, &nothing_small]), None, "one of them is not worth it");
        assert_eq!(together(&[&far, &[]]), None);
        let smoke = [Object { hazard: true, ..object(300.0, 200.0, 240.0, 120.0) }];
        assert!(
            together(&[&far, &smoke]).is_none() && alone(&smoke, HD, TENSOR).is_some(),
            "as large as alone"
        );
    }

    #[test]
    fn a_box_that_goes_on_beyond_its_part_is_none_but_at_the_pictures_edge() {
        let inside = alone(&[object(900.0, 500.0, 30.0, 60.0)], HD, TENSOR).unwrap()[0];
        let corner = alone(&[object(10.0, 20.0, 20.0, 40.0)], HD, TENSOR).unwrap()[0];
        for (placement, [left, top, right, bottom], whole) in [
            (inside, [5.0, 5.0, 20.0, 30.0], true),
            (inside, [0.0, 5.0, 20.0, 30.0], false),
            (inside, [5.0, 0.5, 20.0, 30.0], false),
            (inside, [5.0, 5.0, inside.place.width as f32, 30.0], false),
            (corner, [0.0, 0.0, 20.0, 30.0], true),
            (corner, [0.0, 0.0, 20.0, corner.place.height as f32], false),
        ] {
            let found = placement.to_picture(Rect::from_sides(left, top, right, bottom), HD);
            assert_eq!(found.is_some(), whole, "{placement:?} {left} {top} {right} {bottom}");
        }
        assert_eq!(inside.to_picture(Rect::from_sides(200.0, 5.0, 220.0, 30.0), HD), None, "elsewhere");
    }

    proptest! {
        #[test]
        fn parts_lie_apart_within_the_tensor_and_lead_back_to_the_picture(
            pictures in prop::collection::vec(
                (
                    prop::collection::vec(
                        (any::<bool>(), (0.0f32..0.95, 0.0f32..0.95, 0.001f32..0.3, 0.001f32..0.3)),
                        0..24,
                    ),
                    (32u32..2000, 32u32..2000),
                ),
                1..4,
            ),
            tensor in (64u32..700, 64u32..700),
        ) {
            let within = |(hazard, (left, top, width, height))| {
                Object { bounds: Rect { left, top, width, height }.clamped(), hazard }
            };
            let pictures: Vec<(Vec<Object>, (u32, u32))> = pictures
                .into_iter()
                .map(|(objects, size)| (objects.into_iter().map(within).collect(), size))
                .collect();
            let sights: Vec<Sights<'_>> = pictures.iter().map(|(objects, size)| (&objects[..], *size)).collect();
            let Some(placements) = pack(&sights, tensor) else { return Ok(()) };
            let apart = |a: Area, b: Area| {
                a.right() <= b.left || b.right() <= a.left || a.bottom() <= b.top || b.bottom() <= a.top
            };
            let places: Vec<Area> = placements.iter().flatten().map(|placement| placement.place).collect();
            for (index, place) in places.iter().enumerate() {
                prop_assert!(place.right() <= tensor.0 && place.bottom() <= tensor.1);
                for other in &places[..index] {
                    prop_assert!(apart(*place, *other));
                }
            }
            for ((objects, picture), placements) in pictures.iter().zip(&placements) {
                for Placement { part, place } in placements {
                    prop_assert!(part.right() <= picture.0 && part.bottom() <= picture.1);
                    prop_assert!(part.left.is_multiple_of(2) && part.top.is_multiple_of(2));
                    let burns = |object: &Object| {
                        let at = object.bounds.centre();
                        let (x, y) = ((at.x * picture.0 as f32) as u32, (at.y * picture.1 as f32) as u32);
                        object.hazard
                            && (part.left..=part.right()).contains(&x)
                            && (part.top..=part.bottom()).contains(&y)
                    };
                    let blown_up = place.width > part.width || place.height > part.height;
                    prop_assert!(!blown_up || objects.iter().any(burns), "only what may burn is blown up");
                }
                for Object { bounds: object, .. } in objects {
                    let home = placements.iter().find_map(|&placement| {
                        let Placement { part, place } = placement;
                        let scale = place.width as f32 / part.width as f32;
                        let (x, y) = (object.left * picture.0 as f32, object.top * picture.1 as f32);
                        let tensor = Rect {
                            left: place.left as f32 + (x - part.left as f32) * scale,
                            top: place.top as f32 + (y - part.top as f32) * scale,
                            width: object.width * picture.0 as f32 * scale,
                            height: object.height * picture.1 as f32 * scale,
                        };
                        placement.to_picture(tensor, *picture)
                    });
                    let Some(found) = home else { continue }; // it touches an edge after rounding
                    let off = (found.left - object.left).abs() * picture.0 as f32;
                    prop_assert!(off <= 4.0, "{off} pixels off");
                }
            }
        }
    }
}
