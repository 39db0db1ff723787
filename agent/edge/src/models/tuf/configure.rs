//! A maintainer says how boxes are to be configured.

use std::path::Path;

use tough::TargetName;
use tough::schema::Target;

use super::editor::{Editor, Expiry};
use super::keys::KeyFolders;
use super::{CONFIGURATION, CustomOffer, TufError, as_object, at, offer};
use crate::durable::replace;
use crate::remote::offer::{Boxes, Offer};

/// So many configurations before the newest stay: a box may have refused several in a row.
const BEFORE: usize = 8;

impl Editor {
    /// How boxes are to be configured.
    pub fn configurations(&self) -> Vec<Offer> {
        let of = |(name, target): (&TargetName, &Target)| offer(name.raw(), target).ok();
        let mut offers: Vec<_> = self.targets.targets.iter().filter_map(of).collect();
        offers.sort_by_key(|offer| offer.number);
        offers
    }

    /// Adds a configuration that the caller has checked, in the place of the one of that name. Those before stay for the boxes
    /// that refuse it, as long as they are for the same boxes.
    pub async fn configure(
        &mut self,
        name: &str,
        boxes: Boxes,
        file: &Path,
        keys: &KeyFolders,
        expiry: Expiry,
    ) -> Result<Offer, TufError> {
        let wrong =
            |error: &dyn std::fmt::Display| TufError::Metadata(format!("{}: {error}", file.display()));
        let number = self.targets.version.get() + 1; // which the targets get now, and never again
        let target_name = format!("{name}-{number}{CONFIGURATION}");
        let mut target = Target::from_path(file).await.map_err(|error| wrong(&error))?;
        target.custom =
            as_object(&CustomOffer { configuration: name.to_owned(), number, boxes: boxes.clone() })?;
        let added = offer(&target_name, &target).map_err(|why| wrong(&why))?;
        let place = self.place(&added.sha256, &target_name);
        let bytes = std::fs::read(file).map_err(at(file))?;
        replace(&place, &bytes).map_err(at(&place))?;
        let before = self.configurations();
        let of_name = before.iter().rev().filter(|offer| offer.name == name);
        let kept: Vec<_> = of_name.take_while(|offer| offer.boxes == boxes).take(BEFORE).collect();
        self.forget(|offer| offer.name == name && !kept.contains(&offer))?;
        self.targets.add_target(TargetName::new(&target_name)?, target);
        self.publish(keys, expiry).await?;
        Ok(added)
    }

    /// Takes a configuration away: its boxes go back to the next that is for them, or to their own files.
    pub async fn remove_configuration(
        &mut self,
        name: &str,
        keys: &KeyFolders,
        expiry: Expiry,
    ) -> Result<(), TufError> {
        if self.forget(|offer| offer.name == name)? == 0 {
            let mut names: Vec<_> = self.configurations().into_iter().map(|offer| offer.name).collect();
            names.dedup();
            return Err(TufError::NoTarget(format!("configuration {name}; it holds: {}", names.join(", "))));
        }
        self.publish(keys, expiry).await
    }

    fn forget(&mut self, which: impl Fn(&Offer) -> bool) -> Result<usize, TufError> {
        let gone: Vec<_> = self.configurations().into_iter().filter(which).collect();
        for offer in &gone {
            self.targets.targets.remove(&TargetName::new(&offer.target)?);
        }
        Ok(gone.len())
    }
}
