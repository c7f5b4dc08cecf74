// The chat: conversations beside it, the one that is open, and where the next question is written.
import { effect, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { go, route } from "../browser/route";
import { chatModel, hasParameters, parameters, requestFields } from "../browser/settings";
import { Button } from "../controls/button";
import { Composer } from "../controls/composer";
import { HistoryList } from "../controls/history-list";
import { ModelSelect } from "../controls/model-select";
import { Empty } from "../controls/notice";
import { ParametersPanel } from "../controls/parameters";
import { can, chatModels, models } from "../gateway/models";
import { words } from "../words/words";
import { Conversation, chats } from "./conversation";
import { exportChats } from "./export";
import { TurnView } from "./turn-view";

const open = signal(new Conversation());
/** Those that an answer is coming for: whoever leaves one finds it going on. */
const running = new Map<string, Conversation>();
const draft = signal("");
const draftImages = signal<string[]>([]);

// The address says which conversation is open; one that is not kept (any more) is a new one.
effect(() => {
  const { place, id } = route.value;
  if (place !== "chat" || id === open.peek().id) return;
  const kept = chats.items.value.find((each) => each.id === id);
  if (running.has(id)) open.value = running.get(id)!;
  else if (kept) open.value = Conversation.kept(kept);
  else if (!id && open.peek().turns.peek().length) open.value = new Conversation();
});

// A first visit begins with a model that serves.
effect(() => {
  const all = chatModels.value;
  if (all.length && !all.some((each) => each.id === chatModel.value)) chatModel.value = all[0]!.id;
});

export function ChatPage() {
  const say = words.value.chat;
  const [showsParameters, setShowsParameters] = useState(false);
  const [showsHistory, setShowsHistory] = useState(false);
  const conversation = open.value;
  const turns = conversation.turns.value;
  const bottom = useBottom(conversation);
  const model = models.value?.find((each) => each.id === chatModel.value);
  const isWrong = "wrong" in requestFields(parameters.value);
  const send = () => {
    const [text, images] = [draft.value.trim(), draftImages.value];
    draft.value = "";
    draftImages.value = [];
    bottom.stick();
    if (route.value.id !== conversation.id) go("chat", conversation.id, true);
    watch(conversation, conversation.say(chatModel.value, text, images));
  };
  const edit = () => {
    const { text, images } = conversation.takeBack();
    draft.value = text;
    draftImages.value = images;
    document.querySelector<HTMLTextAreaElement>(".composer textarea")?.focus();
  };
  return (
    <div class="with-side">
      <HistoryList
        title={say.history}
        place="chat"
        shelf={chats}
        current={conversation.id}
        isOpen={showsHistory}
        onClose={() => setShowsHistory(false)}
        newLabel={say.new}
        onNew={() => { go("chat"); open.value = new Conversation(); }}
        onExport={() => exportChats(chats.items.value)}
      />
      <section class="talk" aria-label={words.value.places.chat}>
        <div class="toolbar">
          <Button icon="list" label={say.history} iconOnly kind="quiet" expanded={showsHistory} onClick={() => setShowsHistory(!showsHistory)} />
          <ModelSelect label={say.model} value={chatModel.value} onChange={(name) => { chatModel.value = name; }} />
          <Button
            icon="sliders"
            label={words.value.parameters.title}
            kind={hasParameters.value || isWrong ? "plain" : "quiet"}
            expanded={showsParameters}
            onClick={() => setShowsParameters(!showsParameters)}
          />
          <Button icon="add" label={say.new} iconOnly kind="quiet" onClick={() => { go("chat"); open.value = new Conversation(); }} />
        </div>
        {showsParameters && <ParametersPanel />}
        <div class="scroll" ref={bottom.scroll} tabindex={-1}>
          <div class="column">
            {turns.length === 0 && (
              <Empty icon="chat" title={say.emptyTitle}><p>{say.emptyText}</p></Empty>
            )}
            {turns.map((turn, at) => (
              <TurnView
                key={at}
                turn={turn}
                isLast={at === turns.length - 1}
                isLastQuestion={turn.role === "user" && at >= turns.length - 2}
                isBusy={conversation.isBusy.value}
                onAgain={() => watch(conversation, conversation.again(chatModel.value))}
                onEdit={edit}
              />
            ))}
          </div>
        </div>
        <Composer
          text={draft}
          images={draftImages}
          hindrance={hindrance(isWrong)}
          placeholder={say.placeholder}
          sendLabel={say.send}
          takesPictures={model !== undefined && can(model, "vision") === true}
          isBusy={conversation.isBusy.value}
          onSend={send}
          onStop={() => conversation.stop()}
        />
      </section>
    </div>
  );
}

function watch(conversation: Conversation, answer: Promise<void>): void {
  running.set(conversation.id, conversation);
  void answer.then(() => running.delete(conversation.id));
}

function hindrance(isWrong: boolean): string {
  const say = words.value.chat;
  if (isWrong) return say.wrongParameters;
  if (models.value !== null && chatModels.value.length === 0) return say.noModels;
  return "";
}

/** Keeps the end in sight while text comes, unless the reader has scrolled away from it. */
function useBottom(conversation: Conversation) {
  const scroll = useRef<HTMLDivElement>(null);
  const isStuck = useRef(true);
  useEffect(() => {
    const host = scroll.current!;
    const onScroll = () => { isStuck.current = host.scrollHeight - host.scrollTop - host.clientHeight < 60; };
    const down = () => { if (isStuck.current) host.scrollTop = host.scrollHeight; };
    const grown = new ResizeObserver(down);
    grown.observe(host.firstElementChild!);
    host.addEventListener("scroll", onScroll, { passive: true });
    isStuck.current = true;
    down();
    return () => {
      grown.disconnect();
      host.removeEventListener("scroll", onScroll);
    };
  }, [conversation]);
  return { scroll, stick: () => { isStuck.current = true; } };
}
