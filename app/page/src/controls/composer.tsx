// Where a question is written: Enter sends it, Shift+Enter begins a line, pictures go with it where the model can see.
import type { Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { pictureUrl } from "../browser/files";
import { words } from "../words/words";
import { Button } from "./button";
import { Icon } from "./icons";

interface Props {
  text: Signal<string>;
  images: Signal<string[]>;
  /** What keeps it from being sent; empty when nothing does. */
  hindrance: string;
  placeholder: string;
  sendLabel: string;
  takesPictures: boolean;
  isBusy: boolean;
  onSend: () => void;
  onStop: () => void;
}

const WIDEST_PX = 220;

export function Composer(props: Props) {
  const { text, images, hindrance, placeholder, sendLabel, takesPictures, isBusy, onSend, onStop } = props;
  const say = words.value.composer;
  const area = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const canSend = !hindrance && !isBusy && (text.value.trim() !== "" || images.value.length > 0);
  useEffect(() => {
    const { style, scrollHeight } = area.current!;
    style.height = "auto";
    style.height = `${Math.min(WIDEST_PX, area.current!.scrollHeight || scrollHeight)}px`;
  }, [text.value]);
  const add = async (files: Iterable<File>) => {
    for (const file of files) {
      if (file.type.startsWith("image/")) images.value = [...images.value, await pictureUrl(file)];
    }
  };
  const onKeyDown = (event: KeyboardEvent) => {
    // While an input method composes (Chinese, Japanese), Enter takes its proposal.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (canSend) onSend();
  };
  const onPaste = (event: ClipboardEvent) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (takesPictures && files.length) {
      event.preventDefault();
      void add(files);
    }
  };
  return (
    <form class="composer" onSubmit={(event) => { event.preventDefault(); if (canSend) onSend(); }}>
      {images.value.length > 0 && <Pictures images={images} />}
      <textarea
        ref={area}
        rows={1}
        dir="auto"
        value={text.value}
        placeholder={placeholder}
        aria-label={placeholder}
        onInput={(event) => { text.value = event.currentTarget.value; }}
        onKeyDown={onKeyDown}
        onPaste={onPaste}
      />
      <div class="composer-bar">
        {takesPictures && (
          <>
            <input ref={picker} type="file" accept="image/*" multiple hidden onChange={(event) => {
              void add(event.currentTarget.files ?? []);
              event.currentTarget.value = "";
            }} />
            <Button icon="picture" label={say.picture} iconOnly kind="quiet" onClick={() => picker.current!.click()} />
          </>
        )}
        <span class="hint">{hindrance || (matchMedia("(pointer: fine)").matches && say.hint)}</span>
        {isBusy
          ? <Button icon="stop" label={say.stop} kind="primary" onClick={onStop} />
          : <Button icon="send" label={sendLabel} kind="primary" type="submit" disabled={!canSend} />}
      </div>
    </form>
  );
}

function Pictures({ images }: { images: Signal<string[]> }) {
  return (
    <ul class="pictures">
      {images.value.map((url, at) => (
        <li key={url}>
          <img src={url} alt="" />
          <button
            type="button"
            aria-label={words.value.composer.removePicture}
            onClick={() => { images.value = images.value.filter((_, other) => other !== at); }}
          >
            <Icon name="close" />
          </button>
        </li>
      ))}
    </ul>
  );
}
