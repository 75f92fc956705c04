//! What a call says beside its message.

use tonic::metadata::MetadataMap;

use crate::domain::{Failure, ForcedArm, Secret, Violation};

/// The arm that a call forces, if it does: `x-reg4rec-force-arm: EXPERIMENT=ARM`, and the token that gives the right to
/// under `x-reg4rec-force-token`.
///
/// # Errors
/// [`Failure::Invalid`] when it cannot be read, or is said twice.
pub fn forced_arm(metadata: &MetadataMap) -> Result<Option<ForcedArm>, Failure> {
    let mut said = metadata.get_all(ForcedArm::FIELD).iter();
    let Some(value) = said.next() else { return Ok(None) };
    let invalid = |description| Failure::Invalid(vec![Violation::new(ForcedArm::FIELD, description)]);
    if said.next().is_some() {
        return Err(invalid("is said more than once, expected one EXPERIMENT=ARM".to_owned()));
    }
    let named = value.to_str().ok().and_then(|text| text.split_once('='));
    let (experiment, arm) = named.ok_or_else(|| invalid(format!("is {value:?}, expected EXPERIMENT=ARM")))?;
    // One that is no text is no token of ours.
    let token = metadata.get(ForcedArm::TOKEN_FIELD).and_then(|token| token.to_str().ok()).unwrap_or_default();
    Ok(Some(ForcedArm { token: Secret::new(token), experiment: experiment.into(), arm: arm.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&'static str, &str)]) -> Result<Option<ForcedArm>, Failure> {
        let mut metadata = MetadataMap::new();
        for (key, value) in entries {
            metadata.append(*key, value.parse().unwrap());
        }
        forced_arm(&metadata)
    }

    #[test]
    fn an_arm_is_an_experiment_and_a_name() {
        assert_eq!(read(&[("x-reg4rec-force-token", "t")]), Ok(None));
        let forced = read(&[("x-reg4rec-force-arm", "new-model=b"), ("x-reg4rec-force-token", "t")]);
        let expected = ForcedArm { token: Secret::new("t"), experiment: "new-model".into(), arm: "b".into() };
        assert_eq!(forced, Ok(Some(expected)));
        assert!(read(&[("x-reg4rec-force-arm", "a=b")]).unwrap().unwrap().token.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        for entries in [
            [("x-reg4rec-force-arm", "b"), ("x-reg4rec-force-token", "t")],
            [("x-reg4rec-force-arm", "a=b"), ("x-reg4rec-force-arm", "c=d")],
        ] {
            let Err(Failure::Invalid(wrong)) = read(&entries) else { panic!("{entries:?} was read") };
            assert!(wrong[0].field == "x-reg4rec-force-arm" && wrong[0].description.contains("EXPERIMENT=ARM"));
        }
    }
}
