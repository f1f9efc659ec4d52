//! What the coordinator warns of before it ends.

use coordinator_core::endings::Ending;
use node::net::identity::issue::IssuingCa;
use protocol::Time;
use protocol::trust::Root;

use super::House;
use super::issuing::short;

/// The warnings of this moment, one line each.
pub fn warnings(house: &House) -> Vec<String> {
    let now = house.clock.now().wall;
    of(house.roots.now().trust.root(), &house.issuing.now(), now)
}

fn of(root: &Root, ca: &IssuingCa, now: Time) -> Vec<String> {
    let name = short(ca.certificate());
    let own = Ending::IssuingCa {
        name: name.clone(),
        enterprise: ca.is_signed_by_another(),
    };
    let ends = [
        (Ending::Root, Some(root.expires)),
        (own, ca.ends()),
        (Ending::AboveCa { name }, ca.above_ends()),
    ];
    let near = ends.into_iter();
    near.filter_map(|(what, ends)| what.warning(ends?, now))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use node::net::identity::issue::Validity;
    use protocol::Span;
    use protocol::fixtures::{CREATED, Fleet};

    fn ca(days: u64) -> IssuingCa {
        let validity = Validity {
            not_before: CREATED,
            not_after: CREATED + Span::from_secs(days * 86_400),
        };
        let key = SigningKey::from_bytes(&[days as u8; 32]);
        IssuingCa::create("a fleet", &key, validity).unwrap()
    }

    #[test]
    fn the_root_the_ca_in_use_and_what_stands_above_it_are_warned_of() {
        let mut root = (**Fleet::new(1).trust().root()).clone();
        root.expires = CREATED + Span::from_secs(400 * 86_400);
        let now = CREATED + Span::from_secs(86_400 / 2);
        assert_eq!(of(&root, &ca(200), now), Vec::<String>::new());
        let said = of(&root, &ca(60), now);
        let [one] = &said[..] else { panic!("{said:?}") };
        let name = short(ca(60).certificate());
        assert!(one.contains(&name) && one.contains("in 59 days"), "{one}");
        let above = vec![ca(200).certificate().clone(), ca(70).certificate().clone()];
        let said = of(&root, &ca(201).below(above), now);
        let [one] = &said[..] else { panic!("{said:?}") };
        assert!(one.contains("above") && one.contains("in 69 days"), "{one}");
        root.expires = CREATED;
        assert!(of(&root, &ca(200), now)[0].contains("the root ended 0 days ago"));
    }
}
