//! `stations`: the chargers, as the daemon knows them, and what is agreed on with them.

use pipelet_proto::v1;
use serde::Serialize;

use crate::{
    cli::{AssumeYes, Limit, Registration, Stations},
    client::{Client, paging::Pages},
    commands::call,
    error::{Error, ExitStatus},
    output::Printer,
    system::{secret::Secret, when},
    view::doctor::troubled_stations,
};

pub(crate) async fn run(
    verb: Stations,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Stations::List { connected, limit } => list(connected, limit, client, printer).await,
        Stations::Show { id } => show(id, client, printer).await,
        Stations::Call(args) => call::call(args, client, printer).await,
        Stations::Disconnect { id } => call::disconnect(id, client, printer).await,
        Stations::Add { id, registration } => add(id, registration, client, printer).await,
        Stations::Set {
            id,
            registration,
            clear_password,
            clear_security_profile,
        } => {
            let cleared = Cleared {
                password: clear_password,
                security_profile: clear_security_profile,
            };
            set(change(id, registration, cleared)?, client, printer).await
        }
        Stations::Remove { id, assume } => remove(id, assume, client, printer).await,
    }
}

async fn list(
    connected: bool,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut list = printer.list::<v1::Station>(if connected {
        "no station is connected"
    } else {
        "no stations yet: point one at ws://HOST:9000/ocpp/STATION_ID"
    });
    let mut pages = Pages::new(limit.count(printer.is_on_a_terminal()));
    while let Some(page) = pages.next() {
        let request = v1::ListStationsRequest {
            page_size: page.size,
            page_token: page.token,
            connected: connected.then_some(true),
        };
        let answer = client.stations().list_stations(request).await?.into_inner();
        let stations = pages.accept(answer.stations, answer.next_page_token);
        list.extend(stations)?;
    }
    list.finish(printer, pages.has_more())?;
    tell_troubles(None, client, printer).await;
    Ok(ExitStatus::Success)
}

async fn show(id: String, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::GetStationRequest { id: id.clone() };
    let answer = client.stations().get_station(request).await?.into_inner();
    let done = print(answer.station, printer)?;
    tell_troubles(Some(&id), client, printer).await;
    Ok(done)
}

/// What keeps the station, or any, from being served.
async fn tell_troubles(id: Option<&str>, client: &Client, printer: &Printer) {
    if printer.is_for_people() {
        // What was asked for has been told.
        let status = client.daemon().get_status(v1::GetStatusRequest {}).await;
        let troubles = status.map(|it| troubled_stations(&it.into_inner(), id, when::now()));
        for trouble in troubles.unwrap_or_default() {
            printer.note(&trouble);
        }
    }
}

async fn add(
    id: String,
    registration: Registration,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let request = v1::RegisterStationRequest {
        id,
        registration: Some(spec(registration)?),
    };
    let answer = client.stations().register_station(request).await?;
    print(answer.into_inner().station, printer)
}

async fn set(
    request: v1::UpdateStationRequest,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let answer = client.stations().update_station(request).await?;
    print(answer.into_inner().station, printer)
}

async fn remove(
    id: String,
    assume: AssumeYes,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    #[derive(Serialize)]
    struct Removed {
        id: String,
    }

    if !assume.yes {
        let question = format!("remove the registration of station {id}, its password included?");
        if !printer.confirm(&question).await? {
            return Ok(ExitStatus::Failed);
        }
    }
    let request = v1::RemoveStationRequest { id: id.clone() };
    client.stations().remove_station(request).await?;
    let sentence = format!("station {id} is no longer registered");
    printer.done(&Removed { id }, &sentence)?;
    Ok(ExitStatus::Success)
}

fn print(station: Option<v1::Station>, printer: &Printer) -> Result<ExitStatus, Error> {
    let station = station.ok_or(Error::Incomplete("station"))?;
    printer.one(&station)?;
    Ok(ExitStatus::Success)
}

fn spec(registration: Registration) -> Result<v1::RegistrationSpec, Error> {
    let password = Secret::given(registration.password, registration.password_file)?;
    Ok(v1::RegistrationSpec {
        password: password.map(Secret::into_text),
        security_profile: registration.security_profile,
        boot_policy: registration.boot_policy,
    })
}

/// What a change takes away.
#[derive(Debug, Clone, Copy)]
struct Cleared {
    password: bool,
    security_profile: bool,
}

/// The request that changes what was given; the mask names it.
fn change(
    id: String,
    registration: Registration,
    cleared: Cleared,
) -> Result<v1::UpdateStationRequest, Error> {
    let spec = spec(registration)?;
    let paths = [
        ("password", spec.password.is_some() || cleared.password),
        (
            "security_profile",
            spec.security_profile.is_some() || cleared.security_profile,
        ),
        ("boot_policy", spec.boot_policy.is_some()),
    ];
    let paths = paths.into_iter().filter(|(_, given)| *given);
    let paths: Vec<_> = paths.map(|(path, _)| path.to_owned()).collect();
    if paths.is_empty() {
        return Err(Error::NothingToChange);
    }
    Ok(v1::UpdateStationRequest {
        id,
        registration: Some(spec),
        update_mask: Some(prost_types::FieldMask { paths }),
        allow_missing: false,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_mask_names_what_was_given() {
        for (line, paths) in [
            (
                "--password P --boot-policy Pending",
                vec!["password", "boot_policy"],
            ),
            (
                "--clear-password --security-profile 3",
                vec!["password", "security_profile"],
            ),
            ("--clear-security-profile", vec!["security_profile"]),
            ("", vec![]),
        ] {
            let words = ["pipeletctl", "stations", "set", "S"].into_iter();
            let cli = Cli::try_parse_from(words.chain(line.split_whitespace())).unwrap();
            let Command::Stations(Stations::Set {
                id,
                registration,
                clear_password,
                clear_security_profile,
            }) = cli.command
            else {
                panic!("{line} is a change");
            };
            let cleared = Cleared {
                password: clear_password,
                security_profile: clear_security_profile,
            };
            match change(id, registration, cleared) {
                Ok(request) => assert_eq!(request.update_mask.unwrap().paths, paths, "{line}"),
                Err(error) => {
                    assert!(
                        matches!(error, Error::NothingToChange) && paths.is_empty(),
                        "{line}"
                    );
                }
            }
        }
    }
}
