//! `id-tags`: who may charge.

use pipelet_proto::v1;
use serde::Serialize;

use crate::{
    cli::{AddIdTag, AssumeYes, IdTags, Limit, SetIdTag},
    client::{Client, paging::Pages},
    error::{Error, ExitStatus},
    output::Printer,
    system::when,
};

pub(crate) async fn run(
    verb: IdTags,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        IdTags::Add(args) => add(args, client, printer).await,
        IdTags::List { limit } => list(limit, client, printer).await,
        IdTags::Show { tag } => get(tag, client, printer).await,
        IdTags::Set(args) => set(args, client, printer).await,
        IdTags::Remove { tag, assume } => remove(tag, assume, client, printer).await,
    }
}

async fn add(args: AddIdTag, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::CreateIdTagRequest {
        id_tag: args.tag,
        spec: Some(v1::IdTagSpec {
            status: args.status,
            expiry_date: args.expires.map(when::on_wire),
            parent_id_tag: args.parent,
        }),
    };
    let answer = client.id_tags().create_id_tag(request).await?;
    show(answer.into_inner().id_tag, printer)
}

async fn list(limit: Limit, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let mut list = printer.list::<v1::IdTag>("no id tags: `pipeletctl id-tags add` registers one");
    let mut pages = Pages::new(limit.count(printer.is_on_a_terminal()));
    while let Some(page) = pages.next() {
        let request = v1::ListIdTagsRequest {
            page_size: page.size,
            page_token: page.token,
        };
        let answer = client.id_tags().list_id_tags(request).await?.into_inner();
        let tags = pages.accept(answer.id_tags, answer.next_page_token);
        list.extend(tags)?;
    }
    list.finish(printer, pages.has_more())?;
    Ok(ExitStatus::Success)
}

async fn get(tag: String, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::GetIdTagRequest { id_tag: tag };
    let answer = client.id_tags().get_id_tag(request).await?;
    show(answer.into_inner().id_tag, printer)
}

async fn set(args: SetIdTag, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let answer = client.id_tags().update_id_tag(change(args)?).await?;
    show(answer.into_inner().id_tag, printer)
}

async fn remove(
    tag: String,
    assume: AssumeYes,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    #[derive(Serialize)]
    struct Removed {
        id_tag: String,
    }

    if !assume.yes {
        let question = format!("remove id tag {tag}? it may charge nowhere from then on");
        if !printer.confirm(&question).await? {
            return Ok(ExitStatus::Failed);
        }
    }
    let request = v1::DeleteIdTagRequest {
        id_tag: tag.clone(),
    };
    client.id_tags().delete_id_tag(request).await?;
    let sentence = format!("removed id tag {tag}");
    printer.done(&Removed { id_tag: tag }, &sentence)?;
    Ok(ExitStatus::Success)
}

fn show(tag: Option<v1::IdTag>, printer: &Printer) -> Result<ExitStatus, Error> {
    let tag = tag.ok_or(Error::Incomplete("id tag"))?;
    printer.one(&tag)?;
    Ok(ExitStatus::Success)
}

/// The request that changes what was given; the mask names it.
fn change(args: SetIdTag) -> Result<v1::UpdateIdTagRequest, Error> {
    let paths: Vec<String> = [
        ("status", args.status.is_some()),
        ("expiry_date", args.expires.is_some() || args.no_expiry),
        ("parent_id_tag", args.parent.is_some() || args.no_parent),
    ]
    .into_iter()
    .filter(|(_, given)| *given)
    .map(|(path, _)| path.to_owned())
    .collect();
    if paths.is_empty() {
        return Err(Error::NothingToChange);
    }
    Ok(v1::UpdateIdTagRequest {
        id_tag: args.tag,
        spec: Some(v1::IdTagSpec {
            status: args.status,
            expiry_date: args.expires.map(when::on_wire),
            parent_id_tag: args.parent,
        }),
        update_mask: Some(prost_types::FieldMask { paths }),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn changed(line: &str) -> Result<v1::UpdateIdTagRequest, Error> {
        let words = ["pipeletctl", "id-tags", "set", "RFID_1"].into_iter();
        let cli = Cli::try_parse_from(words.chain(line.split_whitespace())).unwrap();
        let Command::IdTags(IdTags::Set(args)) = cli.command else {
            panic!("{line} sets a tag");
        };
        change(args)
    }

    #[test]
    fn the_mask_names_what_was_given() {
        for (line, paths) in [
            ("--status Blocked", vec!["status"]),
            ("--expires 2026-04-14T12:00:00Z", vec!["expiry_date"]),
            (
                "--no-expiry --parent P",
                vec!["expiry_date", "parent_id_tag"],
            ),
            ("--no-parent", vec!["parent_id_tag"]),
        ] {
            let request = changed(line).unwrap();
            assert_eq!(request.update_mask.unwrap().paths, paths, "{line}");
        }
        assert!(matches!(changed(""), Err(Error::NothingToChange)));
    }
}
