"""Openings: lines that announce something and say nothing, for which judges give points when nothing follows.

They are known by their shape (a heading, a few words that end in a colon) or, where they have none, by their words: each
belongs to the few with which people and models begin to answer, in whatever order (Zhao et al. 2025, arXiv 2507.08794, list
such "master keys").
"""

from __future__ import annotations

import re
import unicodedata


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SUBJECTS = _words("""
    answer answers solution solutions response reasoning explanation analysis rationale
    antwort antworten lösung erklärung begründung überlegung analyse lösungsweg gedankengang
    réponse réponses solution explication raisonnement analyse
    respuesta respuestas solución explicación razonamiento análisis
    resposta respostas solução explicação raciocínio análise
    risposta risposte soluzione spiegazione ragionamento analisi
    ответ ответы решение объяснение рассуждение анализ пояснение
    الجواب الإجابة الحل الشرح التحليل جواب إجابة حل
    उत्तर जवाब हल समाधान व्याख्या विश्लेषण
    답 답은 답변 정답 정답은 해설 풀이 설명 해답 분석
    cevap yanıt çözüm açıklama analiz
    odpowiedź rozwiązanie wyjaśnienie uzasadnienie analiza
    đáp án giải lời
    antwoord oplossing uitleg redenering
    """)
"""What is announced. One of these words is an opening already."""
_DEEDS = _words("""
    think thinking thought thoughts process solve solving explain explaining reason analyze analyse analyzing consider examine
    step steps break work begin start
    denken nachdenken durchdenken durchgehen überlegen lösen erklären betrachten analysieren schritt schritte schrittweise vorgehen
    réfléchir réfléchissons penser pensons résoudre résolvons expliquer analysons étape étapes processus pensée réflexion
    pensar pensemos resolver resolvamos explicar analicemos analizar paso pasos proceso pensamiento
    pensemos resolvamos explicar vamos analisar passo passos processo pensamento
    pensare pensiamo risolvere risolviamo spiegare analizziamo passo passi processo pensiero ragioniamo
    подумаем подумать думать решим решить решать объясню рассмотрим разберём разберем шаг шагу шагам шагом шаги пошагово мыслей размышления
    نفكر لنفكر أفكر نحل لنحل أحل خطوة خطوات بخطوة التفكير عملية سأشرح
    सोचते सोचें सोच विचार सोचने कदम चरण प्रक्रिया समझाता हल
    생각 생각해 생각해보자 생각합시다 풀어 풀어보자 풀어봅시다 단계 단계별로 과정 차근차근 설명하겠습니다
    düşünelim düşünce çözelim adım adımlar adıma süreci inceleyelim
    pomyślmy rozwiążmy krok kroki kroku przemyślenia
    suy nghĩ bước một
    nadenken denken oplossen stap stappen
    """)
"""What is going to be done: an opening where another word stands beside it."""
_AROUND = _words("""
    let us me s i ll am will shall would can going to the a an my our your this that these it its is are be as follows following
    below here now first firstly next then well ok okay sure certainly absolutely of course alright hmm hm with by for in on at
    about and we need must have careful carefully through problem question task request final full complete detailed
    short brief great thanks thank you down into out up one time thing things some like
    lass lasst lassen sie uns mich mir ich wir werde werden wollen das der die den dem ein eine einen mein meine ist sind hier folgt
    folgende folgenden wie nun jetzt zuerst erstens also gut gerne natürlich klar für zu zur zum mit über nach um an aufgabe frage
    problem endgültige vollständige genau sorgfältig
    je nous vais allons laissez moi le la les l un une ce cette ces c est voici voilà d abord bien sûr donc alors pour par à de
    du des au aux et ma mon sur question problème finale complète ensemble maintenant
    déjame dejame déjenme vamos voy a el la los las un una este esta esto es son aquí está primero claro por supuesto bueno para
    mi de del en y al pregunta problema final completa ahora siguiente la
    vou deixe deixa me o os as um uma este esta isto é são aqui primeiro claro bem para minha meu do da em e ao pergunta questão
    agora seguinte por
    lasciami vediamo ora il lo la i gli le un una questo questa è sono ecco prima certo bene allora per di del mia mio domanda
    problema finale in e al dopo andiamo
    давайте давай я мы буду хорошо конечно итак вот мой моя наш это эту эта задачу задача вопрос на по за сначала теперь
    следующий окончательный так ну ход
    دعنا دعني سوف سأ هذا هذه هو هي هنا إليك النهائي النهائية على عن في من أولا أولاً حسنا حسنًا بالطبع السؤال المسألة المشكلة
    بالتفصيل هذه كما يلي
    आइए चलिए मैं हम इस यह का की के को है हैं पर में से यहाँ अंतिम प्रश्न समस्या पहले ठीक ज़रूर दर हूँ करें करते नीचे दिया गया
    우리 제 저는 이 그 한 번 봅시다 보겠습니다 보자 볼게요 하겠습니다 은 는 이다 입니다 다음과 같습니다 문제를 문제 질문 최종 먼저 네 물론 물론입니다 물론이죠
    bu şu bir ve için soru problemi sorunu nihai tamam elbette tabii önce şimdi işte
    to jest oto na po za w i do moja mój ten ta zadanie pytanie końcowa najpierw dobrze oczywiście teraz
    hãy chúng ta tôi sẽ là của câu hỏi bài toán này đây cuối cùng được theo từng dưới
    laten laat we ik zal het de een mijn dit dat hier volgt eerst goed natuurlijk voor op vraag uiteindelijke
    """)
"""What stands around them."""
_STEPS = _words("step schritt étape paso passo шаг خطوة चरण कदम 단계 adım krok bước stap")
"""What is numbered: a number beside it is no answer."""
_UNSPACED_CORE = (
    "一步一步|一步步|一步|逐步|步骤|步驟|思考|思路|分析|推理|解答|解析|解题|解題|解决|解決|解释|解釋|解|答案|回答"
    "|かいせつ|かいとう|こたえ|答え|解説|考え方|考え|順を追って|段階的|一歩ずつ|ステップ|説明|プロセス"
    "|คำตอบ|วิธีทำ|เฉลย|ขั้นตอน|คิด|อธิบาย|วิเคราะห์"
)
_UNSPACED_AROUND = (
    "让我们|讓我們|我们|我們|最终|最終|如下|以下|首先|好的|好|当然|當然|这个|這個|这道|這道|问题|問題|题目|題目|题|題|过程|過程|是|为|為|来|來|请|請"
    "|看|想|我|的|地|て|みましょう|いきましょう|ましょう|バイ|まず|それでは|では|もちろんです|もちろん|はい|この|次の|次|通り|とおり|です|ます|します|いて|について"
    "|を|は|に|が|と|で|も|へ|ทีละ|มา|กัน|เรา|ลอง|แก้|ปัญหา|โจทย์|นี้|คือ|ที่|การ"
)
_HAS_CORE = re.compile(_UNSPACED_CORE)
_UNSPACED = re.compile(rf"(?>{_UNSPACED_CORE}|{_UNSPACED_AROUND}|第[\d一二三四五六七八九十]+步?)++")
"""Words of languages that are written without spaces between them; each is taken once and for all, so that nothing takes long."""
_COLONS = ":\u0589\u05c3\u0703\u0704\u1361\u1365\u1366\u1804\ua789\ufe13\ufe30\ufe55\uff1a"
"""What ends the announcement of something, in the scripts that have such a sign."""
_HEADING = re.compile(r"#{1,6}\s+(?:\S+\s*){1,12}")
_ANNOUNCEMENT = re.compile(rf"(?=.*[^\W\d])(?:\S+\s+){{0,11}}\S*[{_COLONS}]")
"""At most twelve words, one of them with a letter, and a colon: ``12:`` is an answer."""
_SENTENCE = re.compile(r"(?<=[.!?\u2026\u0964\u061f])\s+|(?<=[\u3002\uff01\uff1f])")
_DRESS = " \t*_~`>\"'.!\u3002\uff01\u2026\u2014\u2013-"
_BETWEEN_WORDS = re.compile(
    r"[\s!-/:-@\[-`{-~\u00a1\u00ab\u00bb\u00bf\u060c\u061b\u061f\u0964\u2010-\u2027\u3000-\u303f\uff01-\uff0f\uff1a-\uff20]+"
)
_QUESTION = re.compile("[?\u037e\u061f\uff1f]")
_MOST_CHARACTERS = 200
EMOTICON = re.compile(r"(?<!\S)(?:[:;=][-o^']?[()\[\]DPp/\\|3]|[()\[\]]{1,20}[-o^']?[:;=])(?!\S)")
"""A face of signs, which is as much of an answer as one that is a character."""


def is_opening(line: str) -> bool:
    """Whether all that a line does is to announce something."""
    bare = line.strip(_DRESS)
    if len(bare) > _MOST_CHARACTERS or EMOTICON.search(line) or _QUESTION.search(line):
        return False
    if _HEADING.fullmatch(bare):
        return True
    *before, last = _SENTENCE.split(bare)
    announces = _ANNOUNCEMENT.fullmatch(last) is not None or _is_phrase(last, core=True)
    return announces and all(_is_phrase(sentence, core=False) for sentence in before)


def _is_phrase(sentence: str, *, core: bool) -> bool:
    """Whether a sentence has only words of openings; with ``core``, one of them says what is announced."""
    words = [word for word in _BETWEEN_WORDS.split(unicodedata.normalize("NFC", sentence).casefold()) if word]
    numbers = [word for word in words if word.isdigit()]
    if numbers and _STEPS.isdisjoint(words):
        return False
    found = [*_SUBJECTS.intersection(words), *(word for word in words if _HAS_CORE.search(word))]
    deeds = _DEEDS.intersection(words)
    if core and not found and not (deeds and len(words) > 1):
        return False
    return all(
        word in _SUBJECTS or word in _DEEDS or word in _AROUND or word.isdigit() or _UNSPACED.fullmatch(word)
        for word in words
    )
