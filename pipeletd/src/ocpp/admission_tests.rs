use jiff::Timestamp;
use pipelet_domain::projection::BootStatus;

use super::*;

const PASSWORD: &str = "0123456789abcdefghij";

fn entry(password: bool, profile: Option<SecurityProfile>) -> Registration {
    Registration {
        station: StationId::new("CP1").unwrap(),
        password: password.then(|| PasswordHash::new(PASSWORD, [1; 16]).unwrap()),
        profile,
        boot_policy: BootStatus::Accepted,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials {
        user: user.into(),
        password: password.into(),
    }
}

/// What becomes of a connection of CP1: over TLS or not, with a certificate of this name, with
/// these credentials.
fn admitted(
    entry: Option<&Registration>,
    admission: Admission,
    (tls, certificate, credentials): (bool, Option<&str>, Option<&Credentials>),
) -> Result<u8, Refusal> {
    let names = certificate.map(|name| ClientNames::from_iter([name]));
    let shown = Shown {
        station: &StationId::new("CP1").unwrap(),
        tls,
        certificate: names.as_ref(),
        credentials,
    };
    admit(entry, admission, &shown).map(SecurityProfile::number)
}

#[test]
fn without_an_entry_the_admission_decides() {
    let right = credentials("CP1", PASSWORD);
    let check = |admission, shown, expected| {
        assert_eq!(admitted(None, admission, shown), expected, "{shown:?}");
    };
    check(Admission::Open, (false, None, None), Ok(0));
    check(Admission::Open, (false, None, Some(&right)), Ok(0));
    check(Admission::Open, (true, None, None), Ok(0));
    check(Admission::Open, (true, Some("CP1"), None), Ok(3));
    check(
        Admission::Open,
        (true, Some("CP2"), None),
        Err(Refusal::WrongCertificate),
    );
    for shown in [(false, None, None), (true, Some("CP1"), Some(&right))] {
        check(Admission::Registered, shown, Err(Refusal::Unregistered));
    }
}

#[test]
fn an_entry_decides_what_has_to_be_shown() {
    use SecurityProfile::{Basic, MutualTls, TlsBasic, Unsecured};

    let right = credentials("CP1", PASSWORD);
    let wrong = credentials("CP1", "0123456789abcdefghiJ");
    let other = credentials("CP2", PASSWORD);
    let unreadable = Credentials::default();
    let check = |password, profile, shown, expected| {
        let entry = entry(password, profile);
        for admission in [Admission::Open, Admission::Registered] {
            let admitted = admitted(Some(&entry), admission, shown);
            assert_eq!(admitted, expected, "{entry:?}, {shown:?}");
        }
    };
    // Nothing asked.
    check(false, None, (false, None, None), Ok(0));
    check(false, None, (true, Some("CP1"), None), Ok(3));
    check(false, Some(Unsecured), (false, None, None), Ok(0));
    check(
        false,
        Some(Unsecured),
        (true, None, None),
        Err(Refusal::WrongProfile),
    );
    // A password, wherever it comes.
    check(true, None, (false, None, Some(&right)), Ok(1));
    check(true, None, (true, None, Some(&right)), Ok(2));
    check(
        true,
        None,
        (true, Some("CP1"), None),
        Err(Refusal::NoCredentials),
    );
    // Profiles 1 and 2.
    for (profile, tls) in [(Basic, false), (TlsBasic, true)] {
        let number = profile.number();
        let profile = Some(profile);
        check(true, profile, (tls, None, Some(&right)), Ok(number));
        check(
            true,
            profile,
            (tls, None, None),
            Err(Refusal::NoCredentials),
        );
        for bad in [&wrong, &other, &unreadable] {
            let shown = (tls, None, Some(bad));
            check(true, profile, shown, Err(Refusal::WrongCredentials));
        }
        let elsewhere = (!tls, None, Some(&right));
        check(true, profile, elsewhere, Err(Refusal::WrongProfile));
    }
    // Profile 3.
    check(false, Some(MutualTls), (true, Some("CP1"), None), Ok(3));
    check(
        false,
        Some(MutualTls),
        (true, None, Some(&right)),
        Err(Refusal::NoCertificate),
    );
    check(
        false,
        Some(MutualTls),
        (true, Some("CP2"), None),
        Err(Refusal::WrongCertificate),
    );
    check(
        false,
        Some(MutualTls),
        (false, None, None),
        Err(Refusal::WrongProfile),
    );
}
