//! The source `convert:NAME#FORMAT`: a version of the store once more, in the other form.

use helios_model::convert::{FormFile, Origin, TensorFile};
use helios_model::{Conversion, Lineage, ModelError, WeightFormat};
use helios_storage::BlobInfo;
use helios_types::ModelRef;

use crate::blocking::blocking;
use crate::fetch::{Context, Gathered, GatheredFile};
use crate::pins::Intake;
use crate::progress::{Phase, Reporter};
use crate::registry::digest_of;
use crate::{RegistryError, Resolved};

/// Where the files of the other form go.
struct Sink<'a> {
    intake: &'a Intake,
    reporter: &'a Reporter,
}

/// Brings `model` into the store once more, in the other form.
pub(crate) async fn gather(
    context: &Context,
    model: &ModelRef,
    format: WeightFormat,
) -> Result<Gathered, RegistryError> {
    let resolved = context.registry.resolve(model).await?;
    if resolved.manifest.facts()?.format == format {
        return Err(ModelError::NotConvertible {
            model: resolved.reference.to_string(),
            problem: format!("it is in the {format} form already"),
            hint: "`helios tag` gives a model another name",
        }
        .into());
    }
    context.registry.ensure_files(&resolved.manifest).await?;
    let (intake, reporter) = (context.intake.clone(), context.reporter.clone());
    blocking(move || {
        let (blobs, name) = (intake.blobs().clone(), resolved.reference.clone());
        let origin = Origin::open(blobs, name, resolved.manifest.clone())?;
        let sink = Sink { intake: &intake, reporter: &reporter };
        let files = origin.form(format)?.iter().map(|file| sink.write(file)).collect::<Result<_, _>>()?;
        let licence = resolved.manifest.facts()?.licence.clone();
        Ok(Gathered { files, licence, lineage: lineage_of(&resolved) })
    })
    .await
}

/// The lineage of what is made from a version: its own, and one step more.
fn lineage_of(resolved: &Resolved) -> Lineage {
    let converted = Conversion {
        by: concat!("helios ", env!("CARGO_PKG_VERSION")).to_owned(),
        model: resolved.reference.clone(),
        manifest: resolved.digest,
    };
    Lineage { converted: Some(converted), ..resolved.manifest.lineage.clone().unwrap_or_default() }
}

impl Sink<'_> {
    fn write(&self, file: &FormFile<'_>) -> Result<GatheredFile, RegistryError> {
        let (path, blob) = match file {
            FormFile::Small { name, bytes } => (name, self.intake.put(bytes)?),
            FormFile::Tensors(file) => (&file.name, self.tensors(file)?),
        };
        Ok(GatheredFile { path: path.clone(), blob })
    }

    fn tensors(&self, file: &TensorFile<'_>) -> Result<BlobInfo, RegistryError> {
        let total = file.size();
        let mut report = |done| self.reporter.file(Phase::Converting, &file.name, done, Some(total));
        let key = format!("convert-{}", partial_name(file.header()));
        let mut writer = self.intake.blobs().writer(&key, Some(total))?;
        writer.restart()?;
        Ok(self.intake.commit(file.write(writer, &mut report)?, None)?)
    }
}

/// A name for the partial file of a header: two conversions that write different files never share one.
fn partial_name(header: &[u8]) -> String {
    digest_of(header).hex()[..32].to_owned()
}
