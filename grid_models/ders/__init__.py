"""DERs: placement rules, and models of PV, batteries, houses and water heaters."""
