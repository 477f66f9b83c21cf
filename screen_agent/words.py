"""The words of acts that destroy, pay, send or publish, and how they are found in a text that was read or written.

A text and the words are folded in the same way, so that what looks alike is equal: "De1ete", "DEIETE", a "Dеlete" with
a Cyrillic letter, and one with invisible characters in it. `matches` is the front door.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

# How the words were chosen: what stands on the button that does the act, in the form in which buttons have it (the
# imperative, the infinitive or the noun), and in English what a description says of it ("the one that deletes…"). Left
# out is what can be undone or only leads to another page (sign out, share, upload, check out, cancel, move to the
# trash); states and places (deleted items, sent, payment method, sender); and words that more often mean something
# else: "order" also sorts, "format" is a menu, Russian "перевести" also translates, German "Zahlen" are also numbers.
# Such a word is here with a second word that settles its meaning, or with "=" before it: it then counts only where it
# is the whole text, as "Post" on a button, unlike "Blog post". A false alarm costs a question; a miss costs a file.
_LISTS = {
    "en": """
        delete, deletes, deleting, deletion, remove, removes, removing, removal, erase, erases, erasing, wipe, wipes,
        wiping, shred, purge, destroy, destroys, discard, discards, overwrite, overwrites, truncate, uninstall,
        deactivate, revoke, terminate, =replace, =reset, =drop, drop table, drop database, reset all, reset device,
        reset settings, reset to default, reset to defaults, reset account, factory reset, factory settings,
        hard reset, format disk, format drive, format partition, format card, reformat, empty trash, empty bin,
        empty recycle bin, empty the trash, empty folder, clear all, clear everything, clear history, clear data,
        clear browsing data, don't save, dont save, do not save, without saving, close account, cancel subscription,
        cancel order, cancel booking, force push, force quit, force stop, end task, end process, kill process, kill,
        shut down, shutdown, power off, restart, reboot, =restore, pay, pay now, pays, paying, make payment,
        make a payment, submit payment, confirm payment, send payment, confirm and pay, buy, buy now, buys, buying,
        purchase, purchases, purchasing, =order, order now, place order, place your order, place an order,
        submit order, confirm order, complete order, complete checkout, subscribe, start trial, start free trial,
        renew now, renew subscription, donate, transfer, transfers, wire money, top up, withdraw, sell, sells,
        place bid, place bet, book now, confirm booking, reserve now, confirm reservation, send, send now, sends,
        sending, resend, submit, submits, submitting, unsubscribe, publish, publishes, publishing, unpublish, =post,
        post now, post comment, post reply, post answer, post it, tweet, retweet, go live, broadcast, deploy,
        merge pull request, confirm merge, squash and merge, =merge, sign contract, sign document, irreversible,
        irreversibly, cannot be undone, can't be undone
    """,
    "de": """
        löschen, loeschen, lösche, löscht, löschung, entfernen, entferne, vernichten, verwerfen, überschreiben,
        ueberschreiben, nicht speichern, ohne speichern, papierkorb leeren, verlauf leeren, ordner leeren,
        alles leeren, =zurücksetzen, werkseinstellungen, werkszustand, deinstallieren, formatieren, konto schließen,
        kündigen, stornieren, herunterfahren, neu starten, neustart, neustarten, task beenden, sofort beenden,
        bezahlen, bezahle, =zahlen, jetzt zahlen, zahlung bestätigen, zahlungspflichtig, kostenpflichtig, kaufen,
        kaufe, kauf abschließen, kauf bestätigen, bestellen, bestellung aufgeben, bestellung abschicken,
        bestellung bestätigen, überweisen, ueberweisen, überweisung ausführen, spenden, abonnieren, verkaufen,
        jetzt buchen, verbindlich buchen, senden, sende, absenden, versenden, zusenden, abschicken, verschicken,
        schicken, einreichen, übermitteln, veröffentlichen, veroeffentlichen, publizieren, =posten, jetzt posten,
        unwiderruflich
    """,
    "fr": """
        supprimer, supprime, supprimez, suppression, effacer, effacez, enlever, retirer, détruire, vider la corbeille,
        vider l'historique, vider le dossier, tout vider, écraser, ne pas enregistrer, sans enregistrer,
        abandonner les modifications, ignorer les modifications, désinstaller, formater, =réinitialiser,
        fermer le compte, résilier, annuler la commande, annuler l'abonnement, éteindre, redémarrer, forcer à quitter,
        payer, payez, valider le paiement, confirmer le paiement, acheter, achetez, =commander, commander maintenant,
        passer commande, passer la commande, valider la commande, confirmer la commande, confirmer l'achat,
        effectuer un virement, faire un virement, transférer, s'abonner, faire un don, vendre, réserver maintenant,
        envoyer, envoie, envoyez, renvoyer, soumettre, publier, publiez, =poster, mettre en ligne, irréversible
    """,
    "es": """
        eliminar, elimina, elimine, eliminación, borrar, borra, borre, borrado, quitar, suprimir, destruir, vaciar,
        descartar, sobrescribir, sobreescribir, no guardar, sin guardar, desinstalar, formatear, =restablecer,
        restablecer de fábrica, valores de fábrica, cerrar cuenta, dar de baja, cancelar suscripción, cancelar pedido,
        apagar, reiniciar, forzar cierre, pagar, pague, realizar pago, realizar el pago, confirmar pago,
        confirmar el pago, comprar, =compre, compra ahora, finalizar compra, confirmar compra, realizar compra,
        realizar pedido, hacer pedido, confirmar pedido, tramitar pedido, pedir ahora, ordenar ahora, transferir,
        suscribirse, suscríbete, donar, vender, reservar ahora, confirmar reserva, enviar, envía, envíe, reenviar,
        publicar, publique, postear, irreversible
    """,
    "it": """
        elimina, eliminare, eliminazione, cancella, cancellare, rimuovi, rimuovere, distruggi, svuota, svuotare,
        scarta, sovrascrivi, sovrascrivere, non salvare, senza salvare, disinstalla, disinstallare, formatta,
        formattare, ripristina impostazioni, chiudi account, disdici, annulla ordine, annulla abbonamento, spegni,
        riavvia, paga, pagare, paga ora, conferma pagamento, acquista, acquistare, compra, comprare, ordina ora,
        effettua ordine, conferma ordine, invia ordine, esegui bonifico, trasferisci, trasferire, abbonati, =dona,
        dona ora, vendi, prenota ora, invia, inviare, reinvia, spedisci, =pubblica, pubblica ora, pubblicare,
        irreversibile
    """,
    "pt": """
        excluir, exclua, exclusão, apagar, apague, eliminar, remover, remova, deletar, esvaziar, descartar,
        sobrescrever, não guardar, não salvar, sem salvar, sem guardar, desinstalar, formatar, redefinir tudo,
        padrões de fábrica, encerrar conta, cancelar assinatura, cancelar pedido, desligar, reiniciar, forçar parada,
        pagar, pague, confirmar pagamento, efetuar pagamento, comprar, =compre, fazer pedido, finalizar pedido,
        finalizar compra, confirmar pedido, encomendar, transferir, assinar agora, doar, vender, reservar agora,
        enviar, envie, reenviar, submeter, publicar, publique, postar, irreversível
    """,
    "nl": """
        verwijderen, verwijder, verwijdering, wissen, wis, vernietigen, weggooien, prullenbak legen, map legen,
        overschrijven, niet opslaan, zonder opslaan, wijzigingen negeren, de-installeren, deïnstalleren, formatteren,
        fabrieksinstellingen, account sluiten, opzeggen, bestelling annuleren, opnieuw opstarten, herstarten, betalen,
        betaal, afrekenen, kopen, koop, bestellen, bestel, bestelling plaatsen, overmaken, abonneren, doneren,
        verkopen, boek nu, reserveer nu, verzenden, verzend, versturen, verstuur, sturen, stuur, indienen, publiceren,
        publiceer, =plaatsen, onomkeerbaar
    """,
    "pl": """
        usuń, usunąć, usuwanie, skasuj, kasuj, wymaż, zniszcz, opróżnij, odrzuć zmiany, nie zapisuj, bez zapisywania,
        nadpisz, odinstaluj, formatuj, sformatuj, ustawienia fabryczne, zamknij konto, anuluj zamówienie,
        anuluj subskrypcję, zamknij system, wyłącz komputer, uruchom ponownie, zapłać, =płać, kupuję i płacę, opłać,
        kup, kupuję, kup teraz, zamów, zamawiam, złóż zamówienie, potwierdź zamówienie, przelej, wykonaj przelew,
        subskrybuj, sprzedaj, wpłać, zarezerwuj, wyślij, wysłać, prześlij, opublikuj, publikuj, nieodwracalnie
    """,
    "sv": """
        ta bort, radera, avlägsna, förstör, töm papperskorgen, töm mappen, =töm, =släng, kassera, skriv över,
        spara inte, utan att spara, avinstallera, formatera, fabriksinställningar, avsluta konto, säg upp, stäng av,
        starta om, betala, =köp, köp nu, köpa, slutför köp, bekräfta köp, beställ, beställa, lägg order, överför,
        överföra, prenumerera, donera, sälj, boka nu, skicka, =sänd, publicera, =posta, oåterkalleligt
    """,
    "tr": """
        sil, silmek, silinsin, kaldır, yok et, boşalt, üzerine yaz, =kaydetme, kaydetmeden, biçimlendir,
        fabrika ayarları, hesabı kapat, aboneliği iptal et, siparişi iptal et, bilgisayarı kapat, yeniden başlat, =öde,
        şimdi öde, hemen öde, ödeme yap, ödemeyi onayla, ödemeyi tamamla, satın al, sipariş ver, siparişi onayla,
        siparişi tamamla, para gönder, havale yap, havale et, abone ol, bağış yap, gönder, yayınla, yayımla,
        geri alınamaz
    """,
    "ru": """
        удалить, удали, удалите, удаление, удаляет, стереть, сотри, уничтожить, очистить корзину, очистить историю,
        очистить всё, очистить данные, не сохранять, без сохранения, перезаписать, форматировать, отформатировать,
        деинсталлировать, сбросить настройки, закрыть счёт, отменить подписку, отменить заказ, выключить компьютер,
        завершение работы, завершить работу, снять задачу, перезагрузить, перезагрузка, оплатить, оплати, оплатите,
        заплатить, купить, купи, купите, приобрести, заказать, закажите, оформить заказ, подтвердить заказ,
        подтвердить оплату, перевести деньги, перевести средства, выполнить перевод, подписаться, пожертвовать,
        продать, забронировать, отправить, отправь, отправьте, отправка, отослать, послать, опубликовать, опубликуйте,
        запостить, =разместить, безвозвратно, необратимо
    """,
    "uk": """
        видалити, видали, видаліть, видалення, вилучити, стерти, знищити, очистити кошик, очистити історію,
        очистити все, не зберігати, без збереження, перезаписати, форматувати, відформатувати, скинути налаштування,
        скасувати підписку, скасувати замовлення, завершення роботи, завершити роботу, перезавантажити, сплатити,
        сплати, сплатіть, оплатити, заплатити, купити, придбати, замовити, оформити замовлення, підтвердити замовлення,
        переказати, підписатися, пожертвувати, продати, забронювати, надіслати, надішли, надішліть, відправити,
        відправ, опублікувати, безповоротно
    """,
    "zh": """
        删除, 删掉, 移除, 清空, 清除, 抹掉, 擦除, 销毁, 卸载, 格式化, 恢复出厂, 不保存, 放弃更改, 丢弃, 覆盖文件,
        注销账户, 注销账号, 取消订单, 取消订阅, 强制退出, 结束进程, 结束任务, 关机, 重启, 立即支付, 确认支付, 去支付,
        =支付, 付款, 买单, 购买, 下单, 提交订单, 确认订单, 转账, 汇款, 充值, 提现, 打赏, 捐款, 捐赠, 卖出, 出售,
        立即预订, 发送, 寄出, 提交, 发布, 发表, 发帖, 群发, 无法撤销, 不可恢复, 刪除, 刪掉, 抹除, 銷毀, 解除安裝,
        回復原廠, 不儲存, 捨棄, 覆寫, 取消訂單, 取消訂閱, 強制結束, 結束工作, 關機, 重新啟動, 確認支付, 購買, 下單,
        提交訂單, 送出訂單, 確認訂單, 轉帳, 轉賬, 匯款, 儲值, 捐贈, 賣出, 傳送, 送出, 發送, 發佈, 發布, 發表, 無法復原
    """,
    "ja": """
        削除, 消去, 抹消, 破棄, ゴミ箱を空, 保存しない, 保存せず, 上書き, アンインストール, 初期化, 工場出荷, 解約,
        退会, 注文をキャンセル, 強制終了, シャットダウン, 再起動, 支払う, 今すぐ支払, 支払いを確定, 支払いを実行,
        =支払い, =お支払い, =購入, 購入する, 購入を確定, 今すぐ購入, 今すぐ買, =注文, 注文する, 注文を確定, 今すぐ注文,
        送金, 振り込む, 振込実行, 申し込む, 寄付する, 売却, 予約を確定, 送信, 送る, 提出, =投稿, 投稿する, =公開,
        公開する, 配信する, 元に戻せません, 取り消せません
    """,
    "ko": """
        삭제, 지우기, 제거, 비우기, 파기, 저장 안 함, 저장하지 않음, 덮어쓰기, 포맷, 초기화, 탈퇴, 해지, 주문 취소,
        강제 종료, 시스템 종료, 다시 시작, =결제, 결제하기, 지금 결제, 결제 진행, =구매, 구매하기, 바로구매, 지금 구매,
        =주문, 주문하기, 송금, 이체, 기부하기, 판매하기, 예약하기, 보내기, 전송, 제출, =게시, 게시하기, 발행하기,
        되돌릴 수 없
    """,
    "ar": """
        حذف, احذف, إزالة, إلغاء التثبيت, إرسال, أرسل, دفع, ادفع, شراء, نشر, تحويل الأموال
    """,
    "hi": """
        हटाएं, हटाएँ, मिटाएं, मिटाएँ, डिलीट, भेजें, भुगतान करें, खरीदें, ख़रीदें, प्रकाशित करें
    """,
}
DENY_BY_LANGUAGE: dict[str, tuple[str, ...]] = {
    language: tuple(" ".join(word.split()) for word in words.split(",")) for language, words in _LISTS.items()
}
DENY_WORDS: tuple[str, ...] = tuple(dict.fromkeys(word for words in DENY_BY_LANGUAGE.values() for word in words))
"""All of them, each once."""

_ALIKE_ROWS = {
    # What is read for a letter or looks like it, capitals and small letters: digits, Cyrillic, Greek, Armenian,
    # Cherokee, Lisu, and small capitals. i, l and 1 are one class, as are other pairs that readers confuse.
    "a": "4аАαΑɑᴀᎪꓮ",
    "b": "86вВбБьЬΒßʙᏴꓐ",
    "c": "сСςᴄᏟꓚ",
    "d": "ԁԀᴅᎠꓓđĐðÐ",
    "e": "3еЕєЄзЗэЭΕεᴇᎬꓰ",
    "f": "ꜰϝꓝ",
    "g": "9ɡɢԌᏀꓖ",
    "h": "һҺнНΗʜᎻꓧհ",
    "j": "јЈϳᴊᎫꓙ",
    "k": "кКκΚᴋᏦꓗ",
    "l": "1iIіІӏӀιΙıɪʟᏞꓡꓲᎥłŁ∣ǀ",
    "m": "мМΜᴍᎷꓟ",
    "n": "Νηɴꓠոп",
    "o": "0оОοΟσᴏօՕꓳøØ",
    "p": "рРρΡᴘᏢꓑ",
    "q": "ԛԚգ",
    "r": "гʀᎡꓣ",
    "s": "5ѕЅꜱᏚꓢ",
    "t": "7тТτΤᴛᎢꓔ",
    "u": "υᴜսꓴ",
    "v": "νѵѴᴠᏙꓦ",
    "w": "ѡԝԜᴡᎳꓪ",
    "x": "хХχΧꓫ",
    "y": "уУγΥүҮʏᎩꓬ",
    "z": "2ΖᴢᏃꓜ",
    "カ": "力",
    "ロ": "口",
    "ニ": "二",
    "ハ": "八",
    "タ": "夕",
    "ト": "卜",
    "エ": "工",
    "ー": "一",
} | dict(zip("アイウエオツヤユヨあいうえおつやゆよ", "ァィゥェォッャュョぁぃぅぇぉっゃゅょ"))
# ß is misread as B, but written "ss" more often; it is folded as that.
_ALIKE = {ord(other): letter for letter, others in _ALIKE_ROWS.items() for other in others if other != "ß"}

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u0640")
"""Characters that leave no ink, or (the Arabic tatweel) none that says anything, and have no category of their own."""
_NUMBERS = {ord(str(digit)): 0xE000 + digit for digit in range(10)}
"""The digits of a number become characters that look like no letter: 511 is not a misread "sil"."""
_LETTERLIKE = str.maketrans("|!¡$@€", "lllsae")
"""What is read for a letter inside a word, and is a word's end elsewhere."""

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u31ff\u3400-\u9fff\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts that write no spaces between words, or glue endings to them: Thai to Khmer, kana, Han, Hangul."""
_BIG = "A-ZÀ-ÖØ-ÞА-ЯЁІЇЄҐ"
_SMALL = "a-zß-öø-ÿ\u0100-\u017fа-яёіїєґ"
_UNSPACED_ONE = re.compile(f"[{_UNSPACED}]")
_CUTS = (
    re.compile(rf"(?<=[{_SMALL}\d])(?=[{_BIG}])|(?<=[{_BIG}])(?=[{_BIG}][{_SMALL}])"),  # camelCase, HTMLDelete
    re.compile(r"(?<=[^\W\d_])(?=\d+(?![^\W_]))"),  # delete2
    re.compile(r"(?<![^\W_])(\d+)(?=[^\W\d_])"),  # 2delete
    re.compile(rf"(?<=[{_UNSPACED}])(?=[^\W_{_UNSPACED}])|(?<=[^\W_{_UNSPACED}])(?=[{_UNSPACED}])"),
)
_LETTERLIKE_ONE = re.compile(
    r"[|!¡$@€](?:(?=[^\W\d_])|(?<=[^\W\d_].))|[-‐‑⸗](?<=[^\W\d_].)\s*(?=[^\W\d_])"  # beside a letter
)
_NUMBER = re.compile(r"[0-9](?<![^\W_].)[0-9]*(?![^\W_])")
_HYPHEN = re.compile(r"[-‐‑⸗](?<=[^\W\d_].)\s*(?=[^\W\d_])")
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:(?:[^\w\x00]|_){1,3}[^\W_](?![^\W_])){2,}")
"""Three or more single letters with little between them."""
_END = "\x00"
"""Parts texts that are looked through together."""

_GLUED_WORD = 5
_GLUED_REST = 4
"""Readers lose spaces: a word of so many letters counts at the start or end of a longer one with so many more."""
_ENDINGS = frozenset(
    ["tion", "tions", "ation", "ations", "ting", "able", "ability", "ance", "ence", "ment", "ments", "ilen", "ilenler"]
)
"""Rests that make another word of it: "cancellation" is not the Italian "cancella"."""
_BROKEN_WORD = 4
"""Readers also find spaces where there are none: a word of so many letters is put together from its parts."""

_AROUND = """
    the a an this that button buttons link icon item menu key tab label der die das den schaltfläche knopf le la les
    bouton el los botón il lo pulsante o os botão de het knop przycisk knappen düğmesi кнопка кнопку
"""
"""Words of descriptions that say nothing of the act: "the Post button" is "Post"."""


AGREEING: tuple[str, ...] = tuple(
    "=" + word
    for word in (
        *("ok", "okay", "yes", "continue", "proceed", "confirm", "i agree", "agree", "accept", "i understand"),
        *("ja", "weiter", "fortfahren", "bestätigen", "oui", "continuer", "confirmer", "sí", "aceptar", "continuar"),
        *("confirmar", "sì", "continua", "conferma", "sim", "aceitar", "doorgaan", "bevestigen", "tak", "kontynuuj"),
        *("potwierdź", "fortsätt", "bekräfta", "evet", "devam", "onayla", "tamam", "да", "продолжить", "подтвердить"),
        *(
            "так",
            "продовжити",
            "підтвердити",
            "是",
            "确定",
            "確定",
            "确认",
            "確認",
            "はい",
            "続行",
            "네",
            "예",
            "확인",
            "계속",
        ),
    )
)
"""What stands on a button that says yes to something: what that is stands above it."""


class _Folding(dict[int, str]):
    """What each character becomes; worked out when one is met."""

    def __missing__(self, code: int) -> str:
        self[code] = folded = _fold_character(chr(code))
        return folded


class _Visible(dict[int, str]):
    """Each character itself, or nothing for one that is not seen."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = seen = "" if _unseen(character) else character
        return seen


def _unseen(character: str) -> bool:
    category = unicodedata.category(character)
    if category in ("Cf", "Me") or character in _INVISIBLE:
        return True
    if category == "Cc":
        return not character.isspace() and character != _END
    if category != "Mn":
        return False
    # Accents go; vowel signs and the like of Indic scripts, Thai and kana are letters.
    kind = unicodedata.combining(character)
    return (
        kind == 1 or 10 <= kind <= 36 or kind >= 200 or "\ufe00" <= character <= "\ufe0f" or character >= "\U000e0000"
    )


def _fold_character(character: str) -> str:
    code = ord(character)
    if code in _ALIKE:
        return _ALIKE[code]
    for first in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6):  # letters in boxes, disks and flags
        if first <= code < first + 26:
            return _fold_character(chr(ord("a") + code - first))
    if character == _END or 0xE000 <= code <= 0xE009:
        return character
    if character in "\r\n\x0b\x0c\x85\u2028\u2029":
        return "\n"
    base = unicodedata.normalize("NFD", character)[0]
    if base < "\u0700" and base != character:
        return _fold_character(base)
    if unicodedata.category(character)[0] not in "LNM":
        return " "
    return "".join(_ALIKE.get(ord(part), part) for part in character.casefold())


_VISIBLE = _Visible()
_FOLDING = _Folding()


def _seen(text: str) -> str:
    """Return a text in its compatibility form, without what is not seen."""
    return unicodedata.normalize("NFKC", text).translate(_VISIBLE)


def _fold(seen: str) -> str:
    return _pairs(_NUMBER.sub(lambda number: number[0].translate(_NUMBERS), seen).translate(_FOLDING))


def _pairs(folded: str) -> str:
    """Two letters that look like one."""
    return folded.replace("rn", "m").replace("vv", "w")


@dataclass(frozen=True)
class _Compiled:
    """Words, folded: by token, by the first token of several, in scripts without spaces, as a whole text."""

    order: dict[str, int]
    tokens: dict[str, set[str]] = field(default_factory=dict)
    phrases: dict[str, list[tuple[list[str], str]]] = field(default_factory=dict)
    inside: dict[str, set[str]] = field(default_factory=dict)
    any_inside: re.Pattern[str] = re.compile("(?!)")
    whole: dict[str, set[str]] = field(default_factory=dict)
    whole_parts: set[str] = field(default_factory=set)


@lru_cache(maxsize=32)
def _compile(words: tuple[str, ...] | frozenset[str]) -> _Compiled:
    made = _Compiled({})
    for place, word in enumerate(sorted(words) if isinstance(words, frozenset) else words):
        bare = word.removeprefix("=")
        made.order.setdefault(bare, place)
        # Some letters look like one Latin letter when small and like another when big.
        for form in {bare, bare.upper(), bare.lower(), bare.title()}:
            tokens = _fold(_seen(form)).split()
            joined = _pairs("".join(tokens))
            if not tokens:
                continue
            if word.startswith("="):
                made.whole.setdefault(joined, set()).add(bare)
                made.whole_parts.update(tokens)
            elif _UNSPACED_ONE.search(joined):
                made.inside.setdefault(joined, set()).add(bare)
            else:
                made.tokens.setdefault(joined, set()).add(bare)
                if len(tokens) > 1:
                    made.phrases.setdefault(tokens[0], []).append((tokens, bare))
    return replace(made, any_inside=re.compile("|".join(map(re.escape, made.inside)) or "(?!)"))


def folds_to_nothing(word: str) -> bool:
    """Whether a word of a deny-list has no letter or digit, so that no text can match it."""
    return not _fold(_seen(word.removeprefix("="))).split()


def matches(text: str, words: Collection[str]) -> tuple[str, ...]:
    """Return which of the words occur in a text, in the order of `words` (sorted for a set).

    Words are found whole, whatever their case and accents: "Delete…", "delete_all", "deleteAll" and "Delete/Archive"
    hold "delete"; "undelete" and "deleted" don't. Words of scripts without spaces are found anywhere. A word of several
    is found where they follow each other. One that begins with "=" counts only where it is the whole text or line, and
    is returned without that sign. Also found is what a reader makes of words or a page may have done to them: letters
    and digits that look alike, lost spaces, spaced letters, hyphens, invisible characters.
    """
    return matches_in((text,), words)


def matches_in(texts: Iterable[str], words: Collection[str]) -> tuple[str, ...]:
    """Return which of the words occur in any of several texts, none across two of them; else as `matches`."""
    if not isinstance(words, tuple | frozenset):
        words = frozenset(words) if isinstance(words, set) else tuple(words)
    compiled = _compile(words)
    seen = _seen(_END.join(text.replace(_END, "") for text in texts))
    found: set[str] = set()
    _look(_fold(seen), compiled, found)
    others = _other_readings(seen)
    if others:
        _look(_fold(_END.join(others)), compiled, found)
    for run in _SPACED.finditer(seen):
        letters = [character for character in run[0] if character.isalnum()]
        if sum(letter.isdigit() for letter in letters) * 2 <= len(letters):
            spelled = _pairs("".join(letters).translate(_FOLDING))
            found.update(*(which for word, which in compiled.tokens.items() if word in spelled))
    return tuple(sorted(found, key=compiled.order.__getitem__))


def _other_readings(seen: str) -> set[str]:
    """Return the texts that may have to be cut or joined to show their words, cut and joined."""
    cuts: dict[str, str] = {}
    for chunk in set(seen.replace(_END, " ").split()):
        plain = chunk.isalpha() and (chunk.islower() or chunk.istitle() or chunk.isupper())
        if plain and (chunk.isascii() or not _UNSPACED_ONE.search(chunk)):
            continue
        cut = chunk
        for pattern in _CUTS:
            cut = pattern.sub(r"\g<0> ", cut)
        if cut != chunk:
            cuts[chunk] = cut
    odd = cuts.keys()
    symbols = _LETTERLIKE_ONE.search(seen) is not None
    others: set[str] = set()
    for text in seen.split(_END) if cuts or symbols else ():
        if symbols and _LETTERLIKE_ONE.search(text):
            others.add(_HYPHEN.sub("", text).translate(_LETTERLIKE))
        if not odd.isdisjoint(text.split()):
            lines = (" ".join(cuts.get(chunk, chunk) for chunk in line.split()) for line in text.split("\n"))
            others.add("\n".join(lines))
    return others


def _look(folded: str, compiled: _Compiled, found: set[str]) -> None:
    """Add the words that occur in folded texts, with `_END` between them, to `found`."""
    known = compiled.tokens
    texts = folded.split(_END)
    tokens = set(folded.replace(_END, " ").split())
    for token in tokens & known.keys():
        found |= known[token]
    for token in tokens:
        for cut in range(_GLUED_WORD, len(token) - _GLUED_REST + 1):
            if token[cut:] not in _ENDINGS_FOLDED:
                found |= known.get(token[:cut], _NONE)
            found |= known.get(token[len(token) - cut :], _NONE)
    starts = tokens & compiled.phrases.keys()
    singles = any(len(token) == 1 and token < "\u0600" for token in tokens)
    labels = {*texts, *folded.replace(_END, "\n").split("\n")}
    if starts or singles:
        for text in texts:
            parts = text.split()
            for place, token in enumerate(parts):
                if token in starts:
                    for phrase, word in compiled.phrases[token]:
                        if parts[place : place + len(phrase)] == phrase:
                            found.add(word)
                if len(token) == 1 and token < "\u0600":
                    _mend(parts, place, known, found)
    compact = "".join(folded.split())
    if compiled.any_inside.search(compact):
        found.update(*(which for word, which in compiled.inside.items() if word in compact))
    for label in labels:
        if len(label) <= _LONGEST_LABEL:
            parts = label.split()
            found |= compiled.whole.get(_pairs("".join(parts)), _NONE)
            if not compiled.whole_parts.isdisjoint(parts):
                core = [part for part in parts if part not in _AROUND_FOLDED and not _mere(part)]
                found |= compiled.whole.get(_pairs("".join(core)), _NONE)


def _mere(part: str) -> bool:
    """Whether a part of a label is one letter, as an icon is often read, or a number, as that of new messages."""
    return "\ue000" <= part[0] <= "\ue009" or (len(part) == 1 and part < "\u3000")


_NONE: frozenset[str] = frozenset()
_AROUND_FOLDED = frozenset(_fold(_seen(_AROUND)).split())
_ENDINGS_FOLDED = frozenset(map(_fold, _ENDINGS))
_LONGEST_LABEL = 60
"""A text of more characters is no label."""


def _mend(tokens: list[str], place: int, known: dict[str, set[str]], found: set[str]) -> None:
    """Add words that a reader broke at a single letter: "D elete", "De l ete"."""
    if all(len(tokens[near]) == 1 for near in (place - 1, place + 1) if 0 <= near < len(tokens)):
        return
    for width in (2, 3, 4):
        for start in range(max(0, place - width + 1), min(place, len(tokens) - width) + 1):
            mended = _pairs("".join(tokens[start : start + width]))
            if len(mended) >= _BROKEN_WORD:
                found |= known.get(mended, _NONE)
