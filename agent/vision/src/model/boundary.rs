//! Events, never identities: the words that make a model one that this agent does not run.

/// The word in a label or output's name that says who somebody is instead of what happens, if there is one.
///
/// Whole words, so that "headphones" and "traffic light" pass. A model that declares one of these is refused
/// even though its label would be dropped: it was made for something that this agent does not do.
pub(super) fn forbidden(text: &str) -> Option<&'static str> {
    const WORDS: [&str; 52] = [
        "face",
        "faces",
        "facial",
        "landmark",
        "landmarks",
        "iris",
        "identity",
        "reid",
        "embedding",
        "embeddings",
        "embed",
        "feature",
        "features",
        "feat",
        "plate",
        "plates",
        "numberplate",
        "licenseplate",
        "gait",
        "man",
        "men",
        "woman",
        "women",
        "boy",
        "girl",
        "child",
        "children",
        "baby",
        "elderly",
        "male",
        "female",
        "gender",
        "age",
        "ethnicity",
        "race",
        "religion",
        "hijab",
        "turban",
        "headscarf",
        "fingerprint",
        "emotion",
        "emotions",
        "adult",
        "adults",
        "elder",
        "infant",
        "kid",
        "kids",
        "lady",
        "ladies",
        "teenager",
        "toddler",
    ];
    const CHARACTERS: [&str; 15] = [
        "人脸", "脸", "臉", "面部", "车牌", "号牌", "男", "女", "儿童", "小孩", "老人", "婴儿", "年龄",
        "性别", "民族",
    ];
    // licensePlate is two words as well.
    let mut apart = String::with_capacity(text.len() + 8);
    let mut before = ' ';
    for character in text.chars() {
        if before.is_lowercase() && character.is_uppercase() {
            apart.push(' ');
        }
        apart.push(character);
        before = character;
    }
    let lower = apart.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
    let reid = words.windows(2).any(|pair| pair == ["re", "id"]).then_some("re-id");
    reid.or_else(|| WORDS.into_iter().find(|word| words.contains(word)))
        .or_else(|| CHARACTERS.into_iter().find(|characters| lower.contains(characters)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_about_identities_and_kinds_of_people_are_forbidden_and_objects_are_not() {
        for (label, word) in [
            ("face", Some("face")),
            ("Human_Face", Some("face")),
            ("license plate", Some("plate")),
            ("woman", Some("woman")),
            ("re-id", Some("re-id")),
            ("person_reid", Some("reid")),
            ("output_embedding", Some("embedding")),
            ("age/gender", Some("gender")),
            ("人脸", Some("人脸")),
            ("FACE_FEMALE", Some("face")),
            ("VehicleLicensePlate", Some("plate")),
            ("humanFace", Some("face")),
            ("young-adult", Some("adult")),
            ("号牌", Some("号牌")),
            ("trafficLight", None),
            ("manhole", None),
            ("行人", None),
            ("person", None),
            ("headphones", None),
            ("surface", None),
            ("fire hydrant", None),
            ("teddy bear", None),
            ("garbage", None),
            ("plateau", None),
        ] {
            assert_eq!(forbidden(label), word, "{label}");
        }
    }
}
