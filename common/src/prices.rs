//! What the services cost: a price file, and the arithmetic from what is used to dollars.
//!
//! The file is config/prices.toml, which is built in; operators put in what they pay. A region that has no price of its
//! own has that of its service's section. Prices are list prices in US dollars; GB are 2^30 bytes, as AWS bills them.

mod services;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Document, LoadError, Section, Violation, Violations};

pub use services::{Dynamodb, Egress, ElastiCache, Fargate, Kinesis, Nat};

/// Bytes of what AWS bills as a GB.
pub const GB_BYTES: f64 = (1_u64 << 30) as f64;
/// Hours of a month, as AWS' calculator has it: a twelfth of a year.
pub const MONTH_HOURS: f64 = 730.0;

const BUILT_IN: &str = include_str!("../../config/prices.toml");
const BUILT_IN_2018: &str = include_str!("../../config/prices-2018.toml");

/// The years that a price can be known from.
const YEARS: std::ops::RangeInclusive<u64> = 2006..=2100;

/// Prices of all services.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// DynamoDB and DynamoDB Streams.
    pub dynamodb: Regional<Dynamodb>,
    /// Kinesis Data Streams.
    pub kinesis: Regional<Kinesis>,
    /// Data that leaves a region for another one.
    pub egress: Regional<Egress>,
    /// NAT gateways.
    pub nat: Regional<Nat>,
    /// ElastiCache.
    pub elasticache: Regional<ElastiCache>,
    /// Fargate.
    pub fargate: Regional<Fargate>,
}

/// A service's prices: everywhere, and in the regions that have their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Regional<P> {
    base: Published<P>,
    regions: BTreeMap<String, Published<P>>,
}

/// Prices, and where they are from.
#[derive(Clone, Debug, PartialEq)]
pub struct Published<P> {
    /// The prices.
    pub prices: P,
    /// The page that states them.
    pub source: String,
    /// The year that they are known from.
    pub known_from: u64,
    /// Whether a page that states them was read when the file was written; else they are from memory.
    pub verified: bool,
}

/// `[prices]` of a daemon's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PricesConfig {
    /// The price file; none: the built-in prices.
    pub file: Option<PathBuf>,
}

/// Why a price file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    /// It cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It is not a price file: everything that is wrong with it.
    #[error("price file {path}: {}; see config/prices.toml for what each key means", list(.violations))]
    Violations {
        /// The file.
        path: PathBuf,
        /// One for each key.
        violations: Vec<Violation>,
    },
}

impl Prices {
    /// Those of config/prices.toml, as it was when this was built.
    ///
    /// # Errors
    /// None, unless the file was changed without running its test.
    pub fn built_in() -> Result<Self, PricesError> {
        Self::parse(Path::new("config/prices.toml"), BUILT_IN)
    }

    /// Those of January 2018, of config/prices-2018.toml.
    ///
    /// # Errors
    /// As [`built_in`](Self::built_in).
    pub fn built_in_2018() -> Result<Self, PricesError> {
        Self::parse(Path::new("config/prices-2018.toml"), BUILT_IN_2018)
    }

    /// Those of a file.
    ///
    /// # Errors
    /// When it cannot be read, or with everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, PricesError> {
        Self::of(path, Document::load(path, [], &[])?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, PricesError> {
        let document = Document::parse(text).map_err(|error| {
            let violation = Violation { path: "the file".into(), message: error.message().to_owned() };
            PricesError::Violations { path: path.to_owned(), violations: vec![violation] }
        })?;
        Self::of(path, document)
    }

    fn of(path: &Path, document: Document) -> Result<Self, PricesError> {
        let violations = Violations::default();
        let mut root = Section::root(document.into_root(), &violations);
        let prices = Self {
            dynamodb: read_service(root.section("dynamodb")),
            kinesis: read_service(root.section("kinesis")),
            egress: read_service(root.section("egress")),
            // Operators have files of before it had a price.
            nat: root.optional_section("nat").map_or_else(built_in_nat, read_service),
            elasticache: read_service(root.section("elasticache")),
            fargate: read_service(root.section("fargate")),
        };
        root.finish();
        violations
            .into_result(prices)
            .map_err(|violations| PricesError::Violations { path: path.to_owned(), violations })
    }
}

impl<P> Regional<P> {
    /// The prices in a region; `None`: it is not known which.
    pub fn prices_in(&self, region: Option<&str>) -> &P {
        &self.published_in(region).prices
    }

    /// The same, with where they are from.
    pub fn published_in(&self, region: Option<&str>) -> &Published<P> {
        region.and_then(|region| self.regions.get(region)).unwrap_or(&self.base)
    }
}

impl PricesConfig {
    /// Reads the section, and notes what is wrong with the file that it names.
    pub fn read(mut section: Section) -> Self {
        let config = Self { file: section.path("file") };
        if let Err(error) = config.load() {
            section.note("file", error.to_string());
        }
        section.finish();
        config
    }

    /// The prices.
    ///
    /// # Errors
    /// When the file cannot be read, or with everything that is wrong with it.
    pub fn load(&self) -> Result<Prices, PricesError> {
        self.file.as_deref().map_or_else(Prices::built_in, Prices::load)
    }
}

/// What stands in where a file has no section `nat`.
fn built_in_nat() -> Regional<Nat> {
    // The file is complete: that is what the test of `built_in` says.
    let violations = Violations::default();
    let root = Document::parse(BUILT_IN).map(Document::into_root).unwrap_or_default();
    read_service(Section::root(root, &violations).section("nat"))
}

fn read_service<P: ServicePrices>(mut section: Section) -> Regional<P> {
    let base = read_published(&mut section, None);
    let regions = section.optional_named_sections("regions").into_iter();
    let regions = regions
        .map(|(name, mut region)| {
            let published = read_published(&mut region, Some(&base.prices));
            region.finish();
            (name, published)
        })
        .collect();
    section.finish();
    Regional { base, regions }
}

fn read_published<P: ServicePrices>(section: &mut Section, base: Option<&P>) -> Published<P> {
    Published {
        source: section.required_text("source"),
        known_from: section.required_integer("known_from", YEARS),
        verified: section.required_boolean("verified"),
        prices: P::read(section, base),
    }
}

/// The prices of one service in one region.
trait ServicePrices {
    /// Takes them out of a section. `base` has what stands in for those that are not given; none: all must be.
    fn read(section: &mut Section, base: Option<&Self>) -> Self;
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
