"""DERs: placement rules; models of PV, batteries, vehicles, houses and water heaters."""
