"""The words of the pages: two vocabularies that share few names, each in English, German and French.

`dev` is to develop on, `held` is held out. A pool is a list of names of one sort; templates draw from pools, so that
the same template gives other pages in each split and language.
"""

from __future__ import annotations

Pools = dict[str, tuple[str, ...]]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split("|"))


_DEV_EN = {
    "brand": "Northwind|Acme Cloud|Bluebird|Fernway|Lumen Desk",
    "nav": "Inbox|Drafts|Archive|Calendar|Reports|Projects|Team|Billing|Integrations|Activity|Bookmarks|Contacts"
    "|Pre-orders|Add-ons|Check-in|Notifications|Back-ups|Webhooks|Sign up|Home page|Log-in history|Terms & conditions",
    "echo": "Help|Settings|Export|Search|Preferences|Sign out|Support|Feedback",
    "actions": "Save as…|Add user|Import|Undo|Duplicate|Send invoice|Publish|Preview|Upload|Discard|Create group"
    "|Reply all|Lock|Unsubscribe|Next month|Re-send|Copy link|Sync now|Select all|Show less|Disable|Install",
    "again": "Save|Apply|Edit|Add|Reset|Refresh",
    "row": "Delete|Edit|View|Remove|Rename|Assign|Restore",
    "card": "Add to cart|Details|Compare|Quick view|Wishlist",
    "fields": "Email|Phone|Company|Street|Postcode|First name|User name|VAT number|Job title|Website|Time zone"
    "|Nickname",
    "hints": "Search products…|Type a message|Enter your e-mail|Find people|Filter by name…|Add a comment…"
    "|Your full name",
    "checks": "Remember me|Send a copy|Show hidden files|Auto-save|Dark mode|Keep me posted|Require approval"
    "|Spell check",
    "options": "Daily|Weekly|Monthly|Never|Standard|Express",
    "sections": "Notifications and sounds|Password|Payment methods|Shipping address|Privacy|Connected apps|Appearance"
    "|Danger zone|Language and region|Recent orders|Invoices|Devices",
    "people": "Anna Schmidt|Bob Carter|Chen Wei|Dora Novak|Emil Larsson|Fatima Noor|George Hill|Hanna Berg|Ivan Petrov"
    "|Julia Costa|Karl Weber|Lena Fox",
    "files": "budget.xlsx|invoice-march.pdf|notes.txt|holiday.jpg|backup.zip|report-final.docx|logo.svg|todo.md"
    "|contract.pdf|demo.mp4",
    "products": "Desk lamp|Wireless mouse|Office chair|Notebook A5|Water bottle|USB-C cable|Coffee grinder|Wall clock"
    "|Travel mug|Phone stand",
    "subjects": "Lunch on Friday?|Quarterly numbers attached|Your parcel is on its way|Meeting moved to room 4"
    "|Welcome to the team|Password changed yesterday|Photos from the trip|Re: contract draft|Server back online",
    "columns": "Name|Status|Owner|Last change|Size|Amount|Role|Due date|Order number",
    "long": "Download the yearly tax summary|Invite people from your address book|Compare all available plans"
    "|Recover recently deleted messages|Move everything to another account|Turn off two-factor sign-in"
    "|Print a packing slip|See what is new this week|Report a problem with this page|Manage shared mailbox rules"
    "|Choose a different pick-up point|Connect your bank account securely",
    "menus": "File|Edit|View|Insert|Format|Tools|Window",
    "commands": "New|Open…|Copy|Paste|Cut|Find and replace…|Page setup…|Print preview|Save all|Zoom in|Word count"
    "|Insert table|Quit|Close tab|Spelling|Open in new tab|Export PDF|Delete account",
    "tabs": "Overview|Members|History|Usage|Comments|Permissions|Files",
    "footer": "Imprint|Terms of use|Cookie policy|Press|Careers|Status page",
    "states": "Active|Pending|Paused|Shipped|Draft|Overdue",
    "text": "Changes take effect after the next start.|We never share your data with anyone.|You have used most of your"
    " storage this month.|This page was updated a short while ago.|Ask the owner for access if something is missing.",
}

_HELD_EN = {
    "brand": "Harbor|Pinecone|Velora|Quartz One|Tidewater",
    "nav": "Dashboard|Customers|Inventory|Campaigns|Messages|Analytics|Downloads|Starred|Trash|Groups|Library|Playlists"
    "|Check-out|Plug-ins|Follow-ups|Alerts|Start-up guide|Log in|Web sites|Research & development|Wish-list"
    "|Time-sheets",
    "echo": "Contact us|Account|Share|Filter|Options|Log out|Print|Upgrade",
    "actions": "Save a copy|Add member|Download|Redo|Clone|Request payment|Archive all|Test run|Check out|Forward all"
    "|Unlock|Subscribe to updates|Previous week|Re-open|Paste link|Invite guests|Deselect all|Show more|Enable"
    "|Uninstall|Mark as unread|Follow-up",
    "again": "Update|Submit|Change|New|Clear|Manage",
    "row": "Cancel|Track|Open|Approve|Download|Move|Hide",
    "card": "View details|Learn more|Follow|Book now|Preview",
    "fields": "City|Surname|Mobile|Card number|Country|Department|Delivery note|Display name|Birthday|Reference|Host"
    "|Promo code",
    "hints": "Search files and folders|Write a reply…|name@example.com|Go to page…|Enter a coupon|Ask a question…"
    "|Choose a password",
    "checks": "Stay signed in|Gift wrap|Use billing address|Auto-play|Compact view|Email me updates|Show line numbers"
    "|Read receipts",
    "options": "Small|Medium|Large|By card|On account|Cash on delivery",
    "sections": "Personal details|Delivery|Order summary|Storage|Security|Top sellers|Visitors|Latest reviews"
    "|Upcoming events|Open tasks|Revenue|Newsletter",
    "people": "Marta Kowalska|Noah Fischer|Olga Ivanova|Pedro Alves|Quinn Harper|Rosa Lopez|Sam Turner|Tara Singh"
    "|Umar Khan|Vera Lindt|Will Jones|Yuki Mori",
    "files": "Q3-forecast.pptx|scan_0042.png|song.mp3|thesis.tex|archive-2023.tar|recipes.doc|setup.exe|faces.json"
    "|letter.odt|map.gpx",
    "products": "Running shoes|Garden hose|Rain jacket|Bread knife|Yoga mat|Camping stove|Table fan|Bike helmet"
    "|Picture frame|Wool blanket",
    "subjects": "Order 7714 confirmed|Minutes of the last meeting|Can you review this?|New device was added"
    "|Tickets for Saturday|Your trial ends soon|Updated price list|Thanks for the flowers|Parking on Monday",
    "columns": "Title|Stage|Assignee|Created|Kind|Total|Team|Deadline|Customer number",
    "long": "Send feedback about this screen|Restore an earlier version|Copy settings from another device"
    "|Set up automatic payments|Transfer ownership to a colleague|Show all upcoming appointments"
    "|Find a repair shop near you|Learn how scoring works|Change the default printer|Merge duplicate customer records"
    "|Schedule a call with our experts|Switch to the classic layout",
    "menus": "Document|Layout|Arrange|Review|Data|Extras|Help topics",
    "commands": "Undo typing|Group objects|Align left|Bring forward|Save to disk…|Insert image…|Track changes|Replace…"
    "|Bold|Ruler|Full screen|Next page|Options…|Import CSV|Properties|Paste special…|Lock screen|Rename all",
    "tabs": "Summary|People|Timeline|Costs|Notes|Access|Media",
    "footer": "Legal notice|Accessibility|Partners|Jobs|Site map|Newsroom",
    "states": "Open|Done|Blocked|In transit|On hold|Refunded",
    "text": "All times are shown in your own time zone.|Nothing is stored on this computer.|Some results were left out"
    " for now.|The list is refreshed every few minutes.|Prices include tax and handling.",
}

_DEV_DE = {
    "brand": "Nordwind|Blauvogel",
    "nav": "Übersicht|Entwürfe|Aufträge|Kalender|Verträge|Empfänger|Gelöschte Objekte|Hilfe|Favoriten|Geräte",
    "echo": "Einstellungen|Suche|Unterstützung|Abmelden",
    "actions": "Speichern unter…|Hinzufügen|Rückgängig|Veröffentlichen|Verschieben|Größe ändern|Weiter|Ablehnen"
    "|Zurücksetzen|Schließen",
    "again": "Übernehmen|Bestätigen|Ändern",
    "row": "Löschen|Öffnen|Umbenennen",
    "card": "Zum Warenkorb|Vergleichen|Mehr erfahren",
    "fields": "Straße|Hausnummer|Geburtsdatum|Telefon|Firma|Vorname|Postleitzahl|Länderkürzel",
    "hints": "Suchbegriff eingeben|Nachricht schreiben|Passwort wählen",
    "checks": "Angemeldet bleiben|Kopie an mich|Töne abspielen|Newsletter erhalten",
    "options": "Täglich|Wöchentlich|Jährlich",
    "sections": "Persönliche Daten|Zahlungsarten|Lieferadresse|Datenschutz|Verknüpfte Konten",
    "people": "Jörg Müller|Käthe Groß|Günther Jäger|Änne Fröhlich|Bärbel Weiß",
    "files": "Rechnung.pdf|Übung.docx|Fotos.zip|Maße.txt",
    "products": "Bürostuhl|Schreibtischlampe|Kaffeemühle|Wasserkocher|Türschloss|Gießkanne",
    "subjects": "Ihre Bestellung ist unterwegs|Grüße aus Köln|Terminänderung am Montag|Zählerstand melden",
    "columns": "Name|Zustand|Besitzer|Größe|Fällig am",
    "long": "Häufig gestellte Fragen ansehen|Alle Benachrichtigungen löschen|Rechnung als Datei herunterladen"
    "|Früheres Passwort wiederherstellen",
    "menus": "Datei|Bearbeiten|Ansicht|Einfügen|Extras",
    "commands": "Neues Fenster|Öffnen mit…|Kopieren|Ausschneiden|Drucken…|Vergrößern|Wörter zählen|Beenden",
    "tabs": "Allgemein|Mitglieder|Verlauf|Zugänge",
    "footer": "Impressum|Barrierefreiheit|Über uns|AGB",
    "states": "Aktiv|Ausstehend|Geprüft",
    "text": "Die Änderungen gelten ab dem nächsten Start.|Ihre Daten bleiben auf diesem Gerät.",
}

_HELD_DE = {
    "brand": "Hafenblick|Zirbel",
    "nav": "Startseite|Nachrichten|Kunden|Lagerbestände|Auswertung|Anhänge|Spieleecke|Küche|Bücher|Märkte",
    "echo": "Anmelden|Drucken|Teilen|Konto",
    "actions": "Als Entwurf sichern|Abbrechen|Wiederholen|Jetzt prüfen|Ausführen|Einladen|Überspringen|Bezahlen"
    "|Auswählen|Schätzung anfordern",
    "again": "Aktualisieren|Senden|Verwalten",
    "row": "Stornieren|Anzeigen|Prüfen",
    "card": "Jetzt buchen|Details ansehen|Merken",
    "fields": "Nachname|Ort|Kartennummer|Gutschein|Anrede|Mobilnummer|Lieferhinweis|Gerätename",
    "hints": "Dateien durchsuchen|Frage stellen|Gutscheincode eingeben",
    "checks": "Als Geschenk verpacken|Lesebestätigung anfordern|Kompakte Ansicht|Töne aus",
    "options": "Klein|Mittel|Groß",
    "sections": "Bestellübersicht|Sicherheit|Nächste Termine|Umsätze|Bewertungen",
    "people": "Ulrike Böhm|Matthias Krüger|Sören Lübke|Jürgen Voß|Inge Schröder",
    "files": "Steuererklärung.ods|Aufnahme.wav|Präsentation.odp|Brief.txt",
    "products": "Regenjacke|Fahrradhelm|Küchenmesser|Gartenschlauch|Wärmflasche|Bücherregal",
    "subjects": "Einladung zur Feier|Rückfrage zum Angebot|Neues Gerät hinzugefügt|Danke für die Blumen",
    "columns": "Titel|Stufe|Zuständig|Erstellt|Summe",
    "long": "Frühere Fassung wiederherstellen|Werkstätten in der Nähe finden|Doppelte Einträge zusammenführen"
    "|Automatische Zahlungen einrichten",
    "menus": "Dokument|Anordnen|Überprüfen|Daten|Fenster",
    "commands": "Nach vorne bringen|Links ausrichten|Bild einfügen…|Ersetzen…|Fett|Vollbild|Nächste Seite"
    "|Eigenschaften",
    "tabs": "Überblick|Beteiligte|Kosten|Notizen",
    "footer": "Rechtliches|Stellenangebote|Presse|Kontakt aufnehmen",
    "states": "Offen|Erledigt|Zurückgestellt",
    "text": "Alle Zeiten in Ihrer Zeitzone.|Preise enthalten die Steuer.",
}

_DEV_FR = {
    "brand": "Vent du Nord|Oiseau bleu",
    "nav": "Accueil|Boîte de réception|Brouillons|Tâches|Équipe|Contrats signés|Réunions|Appareils|Éléments supprimés",
    "echo": "Paramètres|Aide|Rechercher|Déconnexion",
    "actions": "Enregistrer sous…|Créer un groupe|Annuler|Aperçu|Répondre à tous|Téléverser|Déplacer|Publier"
    "|Verrouiller",
    "again": "Appliquer|Réinitialiser|Modifier",
    "row": "Supprimer|Ouvrir|Renommer",
    "card": "Ajouter au panier|Comparer|Détails",
    "fields": "Prénom|Société|Téléphone|Code postal|Adresse|Numéro de TVA|Fuseau horaire|Métier",
    "hints": "Écrire un message|Chercher un produit|Saisissez votre nom",
    "checks": "Se souvenir de moi|Mode sombre|Recevoir une copie|Afficher les fichiers cachés",
    "options": "Chaque jour|Chaque semaine|Jamais",
    "sections": "Données personnelles|Moyens de paiement|Confidentialité|Comptes liés|Sécurité",
    "people": "Hélène Dupré|François Lefèvre|Zoé Gérard|André Beaumont|Chloé Hervé",
    "files": "facture.pdf|été.jpg|sauvegarde.zip|résumé.odt",
    "products": "Lampe de bureau|Théière|Chaise pliante|Câble tressé|Réveil|Écharpe",
    "subjects": "Votre colis est arrivé|Déjeuner vendredi|Réunion déplacée|Photos de vacances",
    "columns": "Nom|État|Propriétaire|Taille|Échéance",
    "long": "Télécharger le relevé annuel|Récupérer les messages effacés|Signaler un problème sur cette page"
    "|Gérer les règles partagées",
    "menus": "Fichier|Édition|Affichage|Insertion|Outils",
    "commands": "Nouvelle fenêtre|Coller|Couper|Imprimer…|Agrandir|Mise en page…|Fermer l'onglet|Quitter",
    "tabs": "Général|Membres|Historique|Accès",
    "footer": "Mentions légales|Accessibilité|Carrières|À propos",
    "states": "Actif|En attente|Expédié",
    "text": "Les changements prennent effet au prochain démarrage.|Vos données restent sur cet appareil.",
}

_HELD_FR = {
    "brand": "Pomme de pin|Marée",
    "nav": "Tableau de bord|Clients|Stocks|Messagerie|Bibliothèque|Corbeille|Événements|Favoris|Épinglés|Thèmes",
    "echo": "Se connecter|Imprimer|Partager|Réglages",
    "actions": "Dupliquer|Inviter|Rétablir|Vérifier|Suivant|Tout sélectionner|Désactiver|Régler la commande"
    "|Télécharger",
    "again": "Envoyer|Gérer|Mettre à jour",
    "row": "Suivre|Masquer|Vérifier",
    "card": "Réserver|En savoir plus|S'abonner",
    "fields": "Nom de famille|Ville|Numéro de carte|Pays|Référence|Date de naissance|Hôte|Code de réduction",
    "hints": "Poser une question|Parcourir les dossiers|Entrez un code",
    "checks": "Rester connecté|Emballage cadeau|Vue compacte|Accusé de réception",
    "options": "Petit|Moyen|Très grand",
    "sections": "Récapitulatif|Livraison|Dernières critiques|Prochains rendez-vous|Stockage",
    "people": "Geneviève Noël|Jérôme Fabre|Maëlle Rivière|Léo Chauvet|Béatrice Forêt",
    "files": "thèse.tex|enregistrement.wav|carte.gpx|recettes.doc",
    "products": "Veste de pluie|Casque de vélo|Couteau à pain|Réchaud|Poêle|Tapis de yoga",
    "subjects": "Commande confirmée|Compte rendu de la séance|Fin de votre période d'essai|Merci pour les fleurs",
    "columns": "Titre|Étape|Responsable|Créé le|Montant",
    "long": "Restaurer une version précédente|Trouver un réparateur près de chez vous|Fusionner les fiches en double"
    "|Configurer les paiements automatiques",
    "menus": "Document|Disposition|Révision|Données|Fenêtre",
    "commands": "Mettre en avant|Aligner à gauche|Insérer une image…|Remplacer…|Gras|Plein écran|Page suivante"
    "|Propriétés",
    "tabs": "Résumé|Personnes|Coûts|Échanges",
    "footer": "Informations juridiques|Partenaires|Plan du site|Recrutement",
    "states": "Ouvert|Terminé|Bloqué",
    "text": "Les prix comprennent les taxes.|La liste est actualisée régulièrement.",
}


def _pools(texts: dict[str, str]) -> Pools:
    return {name: _names(text) for name, text in texts.items()}


POOLS: dict[tuple[str, str], Pools] = {
    ("dev", "en"): _pools(_DEV_EN),
    ("held", "en"): _pools(_HELD_EN),
    ("dev", "de"): _pools(_DEV_DE),
    ("held", "de"): _pools(_HELD_DE),
    ("dev", "fr"): _pools(_DEV_FR),
    ("held", "fr"): _pools(_HELD_FR),
}

SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "dev": {
        "Bookmarks": ("the bookmark link", "Bookmark"),
        "Contacts": ("contact", "the Contact link"),
        "Pre-orders": ("preorders", "pre orders", "the Pre-order link"),
        "Add-ons": ("addons", "add ons", "the Add-on link"),
        "Check-in": ("check in", "checkin"),
        "Notifications": ("notification", "NOTIFICATIONS"),
        "Back-ups": ("backups", "back ups", "Backup"),
        "Webhooks": ("webhook", "web hooks"),
        "Sign up": ("sign-up", "signup"),
        "Home page": ("homepage", "home-page"),
        "Log-in history": ("login history", "log in history"),
        "Terms & conditions": ("terms and conditions", "terms & condition"),
        "Projects": ("project", "PROJECTS"),
        "Reports": ("report", "the reports"),
        "Re-send": ("resend", "re send"),
        "Auto-save": ("autosave", "auto save"),
        "User name": ("username", "the user-name field"),
        "VAT number": ("the vat-number field", "Vat number"),
        "Time zone": ("timezone", "the time-zone field"),
        "Postcode": ("post code", "the post-code field"),
        "Devices": ("device", "DEVICES"),
        "Invoices": ("invoice", "the Invoices heading"),
        "Search products…": ("the Search products field", "search products", "the search products box"),
        "Type a message": ("the “type a message” box", "the Type a message field", "type a message…"),
        "Enter your e-mail": ("the Enter your email field", "enter your e-mail"),
        "Find people": ("the Find people field", "find people…"),
        "Filter by name…": ("the Filter by name box", "filter by name"),
        "Add a comment…": ("the Add a comment field", "add a comment"),
        "Your full name": ("the field with the placeholder Your full name", "your full name"),
    },
    "held": {
        "Customers": ("customer", "the Customer link"),
        "Campaigns": ("campaign", "CAMPAIGNS"),
        "Messages": ("message", "the message link"),
        "Downloads": ("the downloads", "DOWNLOADS"),
        "Groups": ("group", "the Group link"),
        "Playlists": ("playlist", "play-lists"),
        "Check-out": ("check out", "the Check out link"),
        "Plug-ins": ("plugins", "plug ins", "the Plug-in link"),
        "Follow-ups": ("followups", "follow ups"),
        "Alerts": ("alert", "the alerts"),
        "Start-up guide": ("startup guide", "start up guide"),
        "Log in": ("log-in", "login"),
        "Web sites": ("websites", "web-sites"),
        "Research & development": ("research and development", "Research and Development"),
        "Wish-list": ("wishlist", "wish list"),
        "Time-sheets": ("timesheets", "time sheets", "timesheet"),
        "Re-open": ("reopen", "re open"),
        "Auto-play": ("autoplay", "auto play"),
        "Follow-up": ("follow up", "followup"),
        "Promo code": ("promo-code", "the promocode field"),
        "Display name": ("the display-name field", "DISPLAY NAME"),
        "Read receipts": ("read receipt", "read-receipts"),
        "Visitors": ("visitor", "VISITORS"),
        "Search files and folders": ("the Search files and folders box", "search files & folders"),
        "Write a reply…": ("the Write a reply field", "write a reply"),
        "name@example.com": ("the name@example.com field", "the box with name@example.com in it"),
        "Go to page…": ("the Go to page field", "go to page"),
        "Enter a coupon": ("the Enter a coupon box", "ENTER A COUPON"),
        "Ask a question…": ("the Ask a question field", "ask a question"),
        "Choose a password": ("the Choose a password field", "choose a password"),
    },
}
"""What people say instead of a name: hyphens, plurals, case, signs, the words of a placeholder."""

NEAR_MISSES: dict[str, dict[str, tuple[str, ...]]] = {
    "dev": {
        "Save as…": ("Save", "Save all"),
        "Sign up": ("Sign in",),
        "Sign out": ("Sign in",),
        "Add user": ("Add group", "Remove user"),
        "Import": ("Export",),
        "Export": ("Import",),
        "Undo": ("Redo",),
        "Upload": ("Download",),
        "Create group": ("Create user",),
        "Reply all": ("Reply",),
        "Lock": ("Unlock",),
        "Unsubscribe": ("Subscribe",),
        "Next month": ("Next week", "Previous month"),
        "Show less": ("Show more",),
        "Disable": ("Enable",),
        "Install": ("Uninstall",),
        "Select all": ("Select none",),
        "Send a copy": ("Send", "Save a copy"),
        "Show hidden files": ("Hide hidden files",),
        "First name": ("Last name", "Name"),
        "Postcode": ("Promo code",),
        "Print preview": ("Print",),
        "Zoom in": ("Zoom out",),
        "Open in new tab": ("Open in new window",),
        "Export PDF": ("Export CSV",),
        "Delete account": ("Delete",),
        "Insert table": ("Insert image",),
        "Close tab": ("Close all tabs",),
        "Add to cart": ("Add to wishlist",),
        "Weekly": ("Yearly",),
        "invoice-march.pdf": ("invoice-may.pdf",),
        "Shipping address": ("Billing address",),
        "Terms of use": ("Terms of sale",),
        "Payment methods": ("Payment history",),
        "Copy link": ("Copy text",),
    },
    "held": {
        "Save a copy": ("Save", "Send a copy"),
        "Log in": ("Log out",),
        "Log out": ("Log in",),
        "Add member": ("Remove member", "Add folder"),
        "Download": ("Upload",),
        "Redo": ("Undo",),
        "Archive all": ("Archive",),
        "Forward all": ("Forward",),
        "Unlock": ("Lock",),
        "Subscribe to updates": ("Unsubscribe",),
        "Previous week": ("Next week", "Previous month"),
        "Paste link": ("Paste",),
        "Deselect all": ("Select all",),
        "Show more": ("Show less",),
        "Enable": ("Disable",),
        "Uninstall": ("Install",),
        "Mark as unread": ("Mark as read",),
        "Stay signed in": ("Sign in",),
        "Use billing address": ("Use shipping address",),
        "Surname": ("First name",),
        "Card number": ("Phone number",),
        "Save to disk…": ("Save",),
        "Import CSV": ("Export CSV", "Import PDF"),
        "Next page": ("Previous page",),
        "Align left": ("Align right",),
        "Bring forward": ("Send backward",),
        "Paste special…": ("Paste",),
        "Insert image…": ("Insert table",),
        "Undo typing": ("Redo typing",),
        "View details": ("Hide details",),
        "scan_0042.png": ("scan_0024.png",),
        "Order summary": ("Order history",),
        "Personal details": ("Payment details",),
        "Email me updates": ("Text me updates",),
        "Latest reviews": ("Latest posts",),
    },
}
"""What is asked where only the near miss is there; the right answer is "not found"."""
