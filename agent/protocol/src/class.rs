//! The closed list of things that the agent may see.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a detection is a detection *of*.
///
/// The list is closed on purpose: labels of a model that fit none of these are dropped, and there is no
/// variant, attribute or escape hatch for a face, an identity, a plate or a kind of person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names say it
pub enum ObjectClass {
    Person,
    Bicycle,
    Motorcycle,
    Car,
    Bus,
    Truck,
    Dog,
    Horse,
    Sheep,
    Cow,
    Fire,
    Smoke,
}

impl ObjectClass {
    /// Every class, in the order of the enum.
    pub const ALL: [ObjectClass; 12] = [
        Self::Person,
        Self::Bicycle,
        Self::Motorcycle,
        Self::Car,
        Self::Bus,
        Self::Truck,
        Self::Dog,
        Self::Horse,
        Self::Sheep,
        Self::Cow,
        Self::Fire,
        Self::Smoke,
    ];

    /// Whether it is something that people drive or ride.
    pub fn is_vehicle(self) -> bool {
        matches!(self, Self::Bicycle | Self::Motorcycle | Self::Car | Self::Bus | Self::Truck)
    }

    /// Whether it is a danger by itself.
    pub fn is_hazard(self) -> bool {
        matches!(self, Self::Fire | Self::Smoke)
    }

    /// The name on the wire and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Bicycle => "bicycle",
            Self::Motorcycle => "motorcycle",
            Self::Car => "car",
            Self::Bus => "bus",
            Self::Truck => "truck",
            Self::Dog => "dog",
            Self::Horse => "horse",
            Self::Sheep => "sheep",
            Self::Cow => "cow",
            Self::Fire => "fire",
            Self::Smoke => "smoke",
        }
    }

    /// The class that a model's label means, if it means one of ours. A few other words are accepted because common
    /// data sets say so; everything else that is not a class's own name is `None`, kinds of people among it.
    ///
    /// What somebody does, ride or work, is no kind: such a label is a person whose head has to be found, and no more than
    /// a person from here on. A model that tells pedestrians and riders apart would else leave the riders' heads as they are.
    pub fn from_label(label: &str) -> Option<Self> {
        match label.trim().to_ascii_lowercase().as_str() {
            "motorbike" => Some(Self::Motorcycle),
            "pedestrian" | "pedestrians" | "people" | "persons" | "human" | "person_sitting" => {
                Some(Self::Person)
            }
            "rider" | "riders" | "cyclist" | "bicyclist" | "motorcyclist" => Some(Self::Person),
            "driver" | "passenger" | "worker" | "workers" => Some(Self::Person),
            "flame" => Some(Self::Fire),
            other => Self::ALL.into_iter().find(|class| class.name() == other),
        }
    }
}

impl fmt::Display for ObjectClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text is none of [`ObjectClass::ALL`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is no class; the classes are person, bicycle, motorcycle, car, bus, truck, dog, horse, sheep, cow, fire, smoke"
)]
pub struct UnknownClass(pub String);

impl FromStr for ObjectClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        Self::ALL.into_iter().find(|class| class.name() == text).ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_map_onto_the_closed_list_or_onto_nothing() {
        for (label, class) in [
            ("person", Some(ObjectClass::Person)),
            ("Motorbike", Some(ObjectClass::Motorcycle)),
            ("fire", Some(ObjectClass::Fire)),
            ("People", Some(ObjectClass::Person)),
            ("human", Some(ObjectClass::Person)),
            ("pedestrian", Some(ObjectClass::Person)),
            ("Rider", Some(ObjectClass::Person)),
            ("Cyclist", Some(ObjectClass::Person)),
            ("worker", Some(ObjectClass::Person)),
            ("woman", None),
            ("police officer", None),
            ("human face", None),
            ("face", None),
            ("license plate", None),
            ("cell phone", None),
            ("", None),
        ] {
            assert_eq!(ObjectClass::from_label(label), class, "{label}");
        }
    }

    #[test]
    fn the_name_on_the_wire_is_the_name_in_the_configuration() {
        for class in ObjectClass::ALL {
            assert_eq!(class.name().parse(), Ok(class));
            assert_eq!(serde_json::to_string(&class).unwrap(), format!("\"{class}\""));
        }
    }
}
