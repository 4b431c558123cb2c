//! Registers a struct of functions that was loaded some time before.

use std::{io, path::Path};

use libbpf_rs::{MapCore as _, MapType, ObjectBuilder};

/// Loads, says so, and registers when a line comes; says what came of it.
pub fn run(object: &str) -> io::Result<()> {
    libbpf_rs::set_print(None);
    let open = ObjectBuilder::default()
        .open_file(Path::new(object))
        .map_err(io::Error::other)?;
    let mut object = open.load().map_err(io::Error::other)?;
    println!("loaded");
    io::stdin().read_line(&mut String::new())?;
    let mut maps = object.maps_mut();
    let mut map = maps
        .find(|map| map.map_type() == MapType::StructOps)
        .ok_or_else(|| io::Error::other("it has no struct of functions"))?;
    match map.attach_struct_ops() {
        Ok(_link) => println!("registered"),
        Err(error) => println!("not registered: {error:#}"),
    }
    Ok(())
}
