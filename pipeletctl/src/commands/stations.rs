//! `stations`: the chargers, as the daemon knows them.

use pipelet_proto::v1;

use crate::{
    cli::{Limit, Stations},
    client::Client,
    commands::call,
    error::{Error, ExitStatus},
    output::Printer,
    paging::Pages,
    view::Station,
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
    }
}

async fn list(
    connected: bool,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut list = printer.list::<Station>(if connected {
        "no station is connected"
    } else {
        "no station has connected yet: point one at ws://HOST:9000/ocpp/STATION_ID"
    });
    let mut pages = Pages::new(limit.count);
    while let Some(page) = pages.next() {
        let request = v1::ListStationsRequest {
            page_size: page.size,
            page_token: page.token,
            connected: connected.then_some(true),
        };
        let answer = client.stations().list_stations(request).await?.into_inner();
        let stations = pages.accept(answer.stations, answer.next_page_token);
        list.extend(stations.into_iter().map(Station::from))?;
    }
    list.finish(printer)?;
    Ok(ExitStatus::Success)
}

async fn show(id: String, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::GetStationRequest { id };
    let answer = client.stations().get_station(request).await?.into_inner();
    let station = answer.station.ok_or(Error::Incomplete("station"))?;
    printer.one(&Station::from(station))?;
    Ok(ExitStatus::Success)
}
