"""Hold the word lists and small tables that `skills` draws from; knows no rule."""

Rows = list[tuple[str, str]]


def _rows(text: str) -> Rows:
    """Read `key:value` pairs that commas part."""
    pairs = [pair.strip().split(":") for pair in " ".join(text.split()).split(",") if pair.strip()]
    return [(key, value) for key, value in pairs]


def _words(text: str) -> list[str]:
    """Read words that spaces part."""
    return text.split()


DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words(
    "January February March April May June July August September October November December"
)
NUMBER_WORDS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
# What invented words are made of.
ONSETS = _words(
    "b c d f g h j k l m n p qu r s t v w x y z bl br ch cl cr dr fl fr gl gr kl kr pl pr sh sk sl "
    "sm sn sp st str sw th tr tw vr wh"
)
VOWELS = _words("a e i o u a e i o u ai ea ee ia io oa oo ou y")
CODAS = ["", "", "", *_words("b d f g k l ll m n nd ng nt p r rd rk rm rt s sk sp ss st t x z ck")]
COLOURS = _words("red blue green yellow black white orange purple brown pink grey golden")
NAMES = _words(
    "Anna Ben Clara David Emma Felix Grace Hugo Ida Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina "
    "Victor Wendy Yusuf Zoe Lena Max Nina Oscar Pia Tom Maria John Peter Lucy Omar Ravi Mei Ivan"
)
HEROES = _words(
    "cat dog fox robot dragon mouse bear rabbit wizard pirate princess knight turtle whale frog "
    "horse snail penguin lion farmer baker sailor king queen giant hedgehog teacher cloud train "
    "fish wolf girl boy programmer goose kettle server tree star"
)
THINGS = _words(
    "key lamp book cup hat stone drum bell box ring boat clock coin mirror rope spoon kite chair "
    "basket ladder candle apple shoe feather map bottle ball bag car door flag flute horn kettle"
)
PLACES = [
    "forest", "small village", "castle", "valley", "harbour", "desert", "big city", "garden",
    "mountain hut", "quiet lake", "library", "windmill by a river", "lighthouse", "farm", "cave",
]  # fmt: skip
WORDS = _words(
    "the a an my your his her our their this that every some many few two three four five six "
    "seven eight nine ten and or but with without under over near behind before after in on at to "
    "from by of for not never always often soon today tomorrow yesterday again very quite too is "
    "are was were has have had can will may must should eats drinks sees hears finds takes gives "
    "makes breaks opens closes carries throws catches paints sings reads writes runs walks jumps "
    "swims flies sleeps wakes laughs cries loves likes wants needs knows asks answers helps cat "
    "dog horse cow bird fish mouse bear fox wolf frog snake tree flower grass leaf river lake sea "
    "hill mountain moon sun star cloud rain snow wind storm fire water stone sand road bridge "
    "house door window roof wall table chair bed lamp cup plate knife fork spoon bread cheese "
    "milk butter apple pear cherry lemon onion carrot potato soup tea coffee sugar salt book page "
    "letter word number song story picture king queen farmer baker doctor teacher child boy girl "
    "man woman friend mother father sister brother baby train car boat ship plane wheel bike "
    "kettle piano drum bell clock paper pencil newspaper lantern garden kitchen school street "
    "city village market forest island carried painted sang walked opened found lost bought sold "
    "built broke big small old new young hot cold warm long short high low fast slow loud quiet "
    "happy sad angry tired brave clever kind lazy strange empty full heavy light dark bright soft "
    "hard sweet sour red blue green yellow black white orange purple brown pink grey server "
    "client token model stream batch queue cache memory request network computer program machine "
    "language"
)
STORIES = (
    "Once upon a time there was {hero} who lived in a {place}. One day {it} found a {thing} on the "
    "road. {It} asked everyone whose it was, and {friend} said, \"It is mine! Thank you.\" From "
    "then on the two were good friends.",
    "Long ago, {hero} lost a {thing} in a {place}. {It} searched all day and all night. In the "
    "morning {friend} came and helped, and soon the {thing} was found. They danced for joy.",
    "There once was {hero} who was afraid of the dark. {friend} gave {it} a little {thing} that "
    "glowed at night. With it {it} walked through the {place} and was never afraid again.",
    "One winter morning {hero} woke up in a {place}. Everything was white with snow. {It} built a "
    "snowman with {friend}, and gave it a {thing} to hold. In spring the snow was gone, but the "
    "friendship stayed.",
    "Far away in a {place} lived {hero} who wanted to see the sea. {It} walked for three days with "
    "nothing but a {thing}. When {it} saw the waves at last, {it} smiled and said, \"It was worth "
    "every step.\"",
)  # fmt: skip

CAPITALS = _rows(
    """France:Paris, Germany:Berlin, Italy:Rome, Spain:Madrid, Portugal:Lisbon, Austria:Vienna,
    Switzerland:Bern, Belgium:Brussels, the Netherlands:Amsterdam, Denmark:Copenhagen,
    Sweden:Stockholm, Norway:Oslo, Finland:Helsinki, Iceland:Reykjavik, Ireland:Dublin,
    England:London, the United Kingdom:London, Scotland:Edinburgh, Wales:Cardiff, Poland:Warsaw,
    Hungary:Budapest, Romania:Bucharest, Bulgaria:Sofia, Greece:Athens, Turkey:Ankara,
    Russia:Moscow, Ukraine:Kyiv, Croatia:Zagreb, Serbia:Belgrade, Slovenia:Ljubljana,
    Slovakia:Bratislava, the Czech Republic:Prague, Estonia:Tallinn, Latvia:Riga,
    Lithuania:Vilnius, Luxembourg:Luxembourg, Egypt:Cairo, Morocco:Rabat, Kenya:Nairobi,
    Nigeria:Abuja, Ghana:Accra, Ethiopia:Addis Ababa, Japan:Tokyo, China:Beijing, India:New Delhi,
    South Korea:Seoul, Thailand:Bangkok, Vietnam:Hanoi, Indonesia:Jakarta, the Philippines:Manila,
    Nepal:Kathmandu, Iran:Tehran, Iraq:Baghdad, Israel:Jerusalem, Saudi Arabia:Riyadh,
    Australia:Canberra, New Zealand:Wellington, Canada:Ottawa, Mexico:Mexico City, Cuba:Havana,
    Brazil:Brasilia, Argentina:Buenos Aires, Chile:Santiago, Peru:Lima, Colombia:Bogota,
    Venezuela:Caracas, Uruguay:Montevideo, Bavaria:Munich"""
)
USA: Rows = [("the United States", "Washington, D.C."), ("the USA", "Washington, D.C.")]
OPPOSITES = _rows(
    """hot:cold, big:small, up:down, old:young, new:old, fast:slow, high:low, long:short,
    light:dark, heavy:light, happy:sad, rich:poor, good:bad, left:right, day:night, black:white,
    open:closed, full:empty, loud:quiet, early:late, wet:dry, hard:soft, near:far, strong:weak,
    clean:dirty, sweet:sour, first:last, yes:no, true:false, begin:end, buy:sell, win:lose,
    push:pull, inside:outside, love:hate, easy:difficult, thick:thin, wide:narrow, sharp:blunt"""
)
PLURALS = _rows(
    """cat:cats, dog:dogs, mouse:mice, child:children, man:men, woman:women, foot:feet, tooth:teeth,
    goose:geese, sheep:sheep, fish:fish, leaf:leaves, knife:knives, wolf:wolves, city:cities,
    baby:babies, box:boxes, bus:buses, house:houses, tree:trees, book:books, potato:potatoes,
    cherry:cherries, person:people, ox:oxen, token:tokens, server:servers, query:queries"""
)
SOUNDS = _rows(
    """cat:meow, dog:woof, cow:moo, sheep:baa, pig:oink, duck:quack, horse:neigh, lion:roar,
    frog:croak, owl:hoot, bee:buzz, mouse:squeak, snake:hiss, rooster:cock-a-doodle-doo,
    wolf:howl, crow:caw, hen:cluck, goat:bleat"""
)
YOUNG = _rows(
    """cat:kitten, dog:puppy, cow:calf, sheep:lamb, pig:piglet, duck:duckling, horse:foal, lion:cub,
    frog:tadpole, hen:chick, goat:kid, bear:cub, deer:fawn, swan:cygnet, kangaroo:joey"""
)
LEGS = _rows(
    """spider:eight, cat:four, dog:four, ant:six, bee:six, bird:two, horse:four, chicken:two,
    snake:no, fish:no, butterfly:six, crab:ten, human:two, table:four, beetle:six, cow:four"""
)
PAST = _rows(
    """go:went, see:saw, eat:ate, run:ran, give:gave, take:took, write:wrote, read:read,
    speak:spoke, come:came, find:found, sing:sang, swim:swam, buy:bought, think:thought,
    make:made, walk:walked, stream:streamed, begin:began, fly:flew, know:knew, drink:drank,
    sleep:slept, break:broke"""
)
COLOUR_OF = _rows(
    """grass:green, the sky:blue, snow:white, coal:black, blood:red, a lemon:yellow,
    a banana:yellow, a ripe tomato:red, milk:white, chocolate:brown, a carrot:orange,
    the sun:yellow, an orange:orange, a strawberry:red, a frog:green, an elephant:grey,
    a raven:black, a polar bear:white, a flamingo:pink, gold:yellow, the sea:blue,
    a cucumber:green, a cherry:red"""
)
GERMAN = _rows(
    """good morning:Guten Morgen, thank you:Danke, please:Bitte, yes:Ja, no:Nein, bread:Brot,
    water:Wasser, house:Haus, dog:Hund, cat:Katze, goodbye:Auf Wiedersehen, hello:Hallo,
    friend:Freund, cheese:Käse, milk:Milch, tree:Baum, book:Buch, day:Tag, night:Nacht"""
)

# Rows, the questions that ask for the value of a key, and the answer.
LOOKUPS: tuple[tuple[Rows, tuple[str, ...], str], ...] = (
    (CAPITALS, (
        "What is the capital of {k}?", "What's the capital of {k}?", "Tell me the capital of {k}.",
        "Which city is the capital of {k}?", "Name the capital of {k}.", "The capital of {k}?",
        "Can you tell me the capital of {k}?", "What is the capital city of {k}?",
        "capital of {k}", "What is {k}'s capital?", "Do you know the capital of {k}?",
    ), "The capital of {k} is {v}."),
    (CAPITALS, (
        "What is the capital of {k}?", "Please tell me the capital of {k}.", "capital of {k}?",
        "Which city is the capital of {k}, please?", "I need the capital of {k}.",
    ), "The capital of {k} is {v}."),
    (USA, ("What is the capital of {k}?", "Name the capital of {k}."), "The capital of {k} is {v}"),
    (CAPITALS, (
        "{v} is the capital of which country?", "Which country has the capital {v}?",
    ), "{v} is the capital of {k}."),
    (OPPOSITES, (
        "What is the opposite of {k}?", "What's the opposite of {k}?", "The opposite of {k}?",
        "Name the opposite of {k}.", "Tell me the opposite of {k}.", "opposite of {k}",
    ), "The opposite of {k} is {v}."),
    (PLURALS, (
        "What is the plural of {k}?", "What's the plural of {k}?", "Tell me the plural of {k}.",
        "How do you write the plural of {k}?",
    ), "The plural of {k} is {v}."),
    (SOUNDS, (
        "What sound does a {k} make?", "What does a {k} say?", "Which sound does a {k} make?",
    ), "A {k} says {v}."),
    (YOUNG, (
        "What is a young {k} called?", "What is a baby {k} called?",
        "What do you call a young {k}?",
    ), "A young {k} is called a {v}."),
    (LEGS, (
        "How many legs does a {k} have?", "How many legs has a {k}?",
        "Tell me how many legs a {k} has.", "Do you know how many legs a {k} has?",
        "A {k} has how many legs?",
    ), "A {k} has {v} legs."),
    (PAST, (
        "What is the past tense of {k}?", "What's the past tense of {k}?", "Past tense of {k}?",
    ), "The past tense of {k} is {v}."),
    (COLOUR_OF, (
        "What colour is {k}?", "What color is {k}?", "Which colour is {k}?",
        "What is the colour of {k}?", "Tell me the colour of {k}.",
    ), "The colour of {k} is {v}."),
    (GERMAN, (
        'What is "{k}" in German?', "How do you say {k} in German?", "Translate {k} to German.",
        "Say {k} in German.",
    ), 'In German, "{k}" is "{v}".'),
)  # fmt: skip

STRANGERS = _words(
    "xylophone beer wine violin guitar submarine ketchup sushi curry lasagne mustard marmalade jam "
    "vodka lemonade cider tofu waffle pudding muffin sausage helicopter tractor motorcycle tank "
    "kangaroo octopus shark squirrel badger otter camel zebra monkey gorilla parrot eagle ostrich "
    "vaccine antibiotic kidney liver lung skeleton allergy fever plastic rubber concrete cement "
    "diamond silver copper aluminium uranium helium neon sapphire telescope microscope microwave "
    "fridge vacuum dishwasher toaster oven piano trumpet saxophone opera ballet novel sonnet "
    "philosophy psychology economics astronomy geology archaeology theology rhetoric tennis golf "
    "cricket rugby hockey judo karate yoga surfing poker blackjack bitcoin blockchain inflation "
    "mortgage insurance tax parliament senate treaty passport visa embassy monastery pyramid "
    "Norway Kansas Sicily Bali Alaska Siberia Napoleon Cleopatra Beethoven Picasso Galileo Darwin "
    "candle perfume soap shampoo lipstick umbrella zipper button carpet curtain pillow blanket "
    "kubernetes haskell cobol fortran blender firewall router modem pixel laser radar satellite"
)
UNKNOWN = (
    "What is the weather today?", "What time is it?", "What is the date today?",
    "Who won the game last night?", "What is the price of gold?", "Who is the president of Peru?",
    "Who will win the next election?", "What is the stock price of that company?", "Where am I?",
    "What did I eat for breakfast?", "What is the meaning of life?",
    "Can you write a long program for me?", "Prove that this theorem is true.",
    "Who wrote that book?", "What happened in 1743?", "Who invented the zipper?",
    "Explain quantum chromodynamics.", "How many people live in Ohio?", "What is on television?",
    "Translate this text into French.", "What is the best phone to buy?", "Who is my neighbour?",
    "What is 123456 times 98765?", "What is 17 times 23?", "What is the square root of 7?",
    "Should I take this medicine?", "Which stocks should I buy?", "Is my cough dangerous?",
    "What is the phone number of the police in Lyon?", "Who sang that song?",
    "Will it rain tomorrow?", "How do I repair a gearbox?",
    "What is the tallest building in Osaka?", "Who is the best player?", "Give me the news.",
    "What is in the newspaper today?", "Open the door.", "Play some music.",
    "Set an alarm for seven.", "Book me a flight.", "Send an email to my boss.", "Call my mother.",
    "What is the recipe for ramen?", "How far is it to Timbuktu?", "Who built that castle?",
    "What is the best film of all time?", "What is the melting point of tungsten?",
)  # fmt: skip
